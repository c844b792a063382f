"""One arm: two lives of a server on one store, and what was measured. No judgement here; criteria.py has the bounds.

first life    empty store: every prompt is computed and stored. Its answers are what all later ones are compared with
second life   warm store, empty local cache:
  hits        stored prompts, one at a time: they come from the store. From here on the stream and the poll run beside everything
  calm        twice: 8 prompts that nobody has, at once, then some one at a time. The no-cache times, and their noise
  hang        the device stops; 8 stored prompts at once; later some more, one at a time
  resume      stored prompts, one after the other, until one is a hit again
  second hang one stored prompt, then SIGTERM
A stored prompt is used once in the second life: the local prefix cache would answer it the second time.
"""
from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from lab import Lab, Probe
from load import Answer, Background, Client, prompt
from server import Server

BURST = 8
SETTLED_S = 2.0  # no new file for so long: everything is stored
SETTLE_MAX_S = 60.0
AFTER_RESUME_S = 0.1  # the first request after the resume, and between one answer and the next
RECOVER_MAX_S = 10.0
RECOVER_TOKENS = 4  # whether it is a hit is the question, not how long decoding takes
HANG_UP_S = 2.0  # after SIGTERM
STOP_BOUND_S = 10.0  # twice what is promised: to see how much more
ANSWER_MAX_S = 120.0
HANG_MAX_S = 75.0


@dataclass(frozen=True)
class Plan:
    hang_s: float
    hits: int
    singles: int
    later: int
    recover: int

    def stored(self) -> dict[str, list[str]]:
        counts = {"hit": self.hits, "burst": BURST, "later": self.later, "recover": self.recover, "last": 1}
        return {kind: [f"{kind} {i}" for i in range(n)] for kind, n in counts.items()}


FULL = Plan(hang_s=75, hits=4, singles=5, later=6, recover=8)
SHORT = Plan(hang_s=30, hits=3, singles=3, later=3, recover=5)


@dataclass(frozen=True)
class Arm:
    name: str
    connector: str
    module: str
    options: dict
    policy: str | None = None

    def transfer(self, root: Path) -> dict:
        config = {"kv_connector": self.connector, "kv_connector_module_path": self.module, "kv_role": "kv_both",
                  "kv_connector_extra_config": {"root": str(root), **self.options}}
        return config | ({"kv_load_failure_policy": self.policy} if self.policy else {})


def say(text: str) -> None:
    print(f"    {time.strftime('%H:%M:%S')} {text}", flush=True)


def settle(lab: Lab) -> tuple[int, int]:
    """Until the store does not grow any more."""
    end, since, seen = time.monotonic() + SETTLE_MAX_S, time.monotonic(), (0, 0)
    while time.monotonic() < min(end, since + SETTLED_S) or not seen[0] and time.monotonic() < end:
        now = lab.files()
        if now != seen:
            since, seen = time.monotonic(), now
        time.sleep(0.2)
    return seen


class Run:
    def __init__(self, arm: Arm, plan: Plan, model: Path, lab: Lab, log: Path) -> None:
        self.arm, self.plan, self.model, self.lab, self.log = arm, plan, model, lab, log
        self.stored = plan.stored()
        self.reference: dict[str, Answer] = {}
        self.measured: dict = {"arm": arm.name, "hang_s": plan.hang_s}
        self.server: Server | None = None

    def start(self, which: str) -> Server:
        self.server = Server(self.model, self.arm.transfer(self.lab.root), self.log)
        self.measured[f"ready_s {which}"] = self.server.wait_ready()
        self.measured[f"ready_cpu_s {which}"] = self.server.cpu_s()
        say(f"{self.arm.name}: {which} life serves after {self.measured[f'ready_s {which}']:.0f} s, "
            f"{self.measured[f'ready_cpu_s {which}']:.0f} s of CPU")
        return self.server

    def run(self) -> dict:
        try:
            asyncio.run(self.first_life(self.start("first")))
            files, size = settle(self.lab)
            self.measured |= {"files": files, "stored_mib": size / 2**20}
            say(f"stored: {files} files, {size / 2**20:.0f} MiB")
            ended = self.server.stop(30)
            self.measured["stop_calm_s"] = ended["seconds"]
            self.server.kill(ended["family"])
            self.lab.evict()
            asyncio.run(self.second_life(self.start("second")))
        finally:
            self.lab.resume()
            if self.server:
                self.server.kill()
        return self.measured

    async def first_life(self, server: Server) -> None:
        async with Client(server.url) as client:
            await client.complete("wake up", ANSWER_MAX_S, prompt("wake up", 300))
            for kind, names in self.stored.items():
                for at in range(0, len(names), BURST):
                    for answer in await client.burst(names[at : at + BURST], ANSWER_MAX_S):
                        self.reference[answer.name] = answer
                        if answer.status != 200:
                            raise RuntimeError(f"{answer.name}: {answer.error or answer.status}")
            # The same end after another beginning: other tokens, or the comparison of tokens proves nothing.
            end = prompt("burst 0")[-256:]
            other = await client.complete("other beginning", ANSWER_MAX_S, prompt("other beginning")[:-256] + end)
            self.measured["prefix_matters"] = not other.same_as(self.reference["burst 0"])
        say("first life: every prompt computed")

    async def second_life(self, server: Server) -> None:
        async with Client(server.url) as client:
            await client.complete("wake up", ANSWER_MAX_S, prompt("wake up again", 300))
            background = Background(client)
            background.start()
            await asyncio.sleep(1)
            try:
                self.note("hits", [await client.complete(n, ANSWER_MAX_S) for n in self.stored["hit"]])
                await self.numbers("after the hits")
                self.measured["calm"] = [await self.calm(client, background, i) for i in range(2)]
                self.measured["hang_s"] = self.hang_s = self.long_enough()
                await self.hang(client, background)
                await self.last(client, background)
            finally:
                await background.stop()

    async def calm(self, client: Client, background: Background, i: int) -> dict:
        begun = time.monotonic()
        burst = await client.burst([f"calm {i} {n}" for n in range(BURST)], ANSWER_MAX_S)
        singles = [await client.complete(f"single {i} {n}", ANSWER_MAX_S) for n in range(self.plan.singles)]
        ended = time.monotonic()
        say(f"calm {i}: 8 at once {seconds(burst)}; one at a time {seconds(singles)}")
        return {"burst": [a.seconds for a in burst], "singles": [a.seconds for a in singles],
                "not_hits": not any(a.hit for a in burst + singles), **self.beside(background, begun, ended)}

    def long_enough(self) -> float:
        """As planned, but on a slow machine so long that everything sent in the hang can be answered in it."""
        calm = self.measured["calm"]
        burst = max(s for phase in calm for s in phase["burst"])
        single = max(s for phase in calm for s in phase["singles"])
        return min(max(self.plan.hang_s, 1.2 * burst + 2 + self.plan.later * 1.2 * single + 2), HANG_MAX_S)

    async def hang(self, client: Client, background: Background) -> None:
        await asyncio.to_thread(self.lab.hang)
        begun = time.monotonic()
        probe = await asyncio.to_thread(Probe, self.lab)
        state = asyncio.create_task(asyncio.to_thread(probe.wait_stuck))
        end = begun + self.hang_s
        burst = asyncio.create_task(client.burst(self.stored["burst"], self.hang_s + ANSWER_MAX_S))
        await asyncio.sleep(1.5)
        held_early = await asyncio.to_thread(self.lab.held)
        later = await self.later(client, burst, begun, end)
        self.measured["probe"] = {"state": await state, "where": probe.where}
        await asyncio.sleep(max(0.0, end - 0.3 - time.monotonic()))
        await self.numbers("at the end of the hang")
        self.measured["held"] = {"early": held_early, "late": await asyncio.to_thread(self.lab.held)}
        self.measured["probe"]["late"] = probe.state()
        self.measured["answered_in_the_hang"] = burst.done()
        await asyncio.sleep(max(0.0, end - time.monotonic()))
        resumed = time.monotonic()
        await asyncio.to_thread(self.lab.resume)
        self.measured["hang"] = self.beside(background, begun, resumed)
        say(f"resumed after {resumed - begun:.1f} s; held then: {self.measured['held']['late']}")
        await self.recover(client, background, resumed)
        self.measured["probe"]["returned"] = await asyncio.to_thread(probe.returned_within, 5)
        self.note("burst", await burst)
        self.note("later", await asyncio.gather(*later))
        await self.numbers("after the resume")

    async def later(self, client: Client, burst: asyncio.Task, begun: float, end: float) -> list[asyncio.Task]:
        """One at a time, after the burst if that ends in the hang. One that hangs does not keep the next one from being sent."""
        first = begun + 0.6 * self.hang_s
        await asyncio.wait([burst], timeout=first - time.monotonic())
        every = (end - 1 - time.monotonic()) / self.plan.later
        sent: list[asyncio.Task] = []
        for name in self.stored["later"]:
            due = time.monotonic() + every
            sent.append(asyncio.create_task(client.complete(name, self.hang_s + ANSWER_MAX_S)))
            await asyncio.wait(sent[-1:], timeout=every)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        return sent

    async def recover(self, client: Client, background: Background, resumed: float) -> None:
        tries: list[dict] = []
        first: dict | None = None
        for name in self.stored["recover"]:
            await asyncio.sleep(AFTER_RESUME_S)
            answer = await client.complete(name, ANSWER_MAX_S, tokens=RECOVER_TOKENS)
            exact = answer.same_as(self.reference[name])
            sent = answer.sent - resumed
            tries.append({"sent_s": sent, "answered_s": sent + (answer.seconds or 0), "hit": answer.hit, "exact": exact})
            if answer.hit:
                first = tries[-1]
                break
            if time.monotonic() > resumed + RECOVER_MAX_S:
                break
        self.measured["recover"] = {"tries": tries, "first_hit": first, **self.beside(background, resumed, time.monotonic())}
        say(f"after the resume: {['hit' if t['hit'] else 'no hit' for t in tries]}, answered {tries[-1]['answered_s']:.2f} s after it")

    async def last(self, client: Client, background: Background) -> None:
        """The second hang, and SIGTERM in it. Clients hang up a little later: with vLLM 0.32 the front end may otherwise wait for them
        without bound, whether something hangs or not (it kills the engine first, and then nobody ends their requests)."""
        await asyncio.sleep(1)
        await asyncio.to_thread(self.lab.hang)
        waiting = asyncio.create_task(client.complete(self.stored["last"][0], STOP_BOUND_S * 3))
        end = time.monotonic() + 5
        while not (held := await asyncio.to_thread(self.lab.held)) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(asyncio.to_thread(self.server.stop, STOP_BOUND_S))
        await asyncio.sleep(HANG_UP_S)
        waiting.cancel()
        await background.stop()
        ended = await stopping
        await asyncio.to_thread(self.lab.resume)
        family = ended.pop("family")
        self.measured["stop"] = ended | {"held": held}
        after = time.monotonic()
        while any(p.alive() for p in family) and time.monotonic() < after + 10:
            await asyncio.sleep(0.05)
        self.measured["stop"]["left_after_resume"] = [p.name for p in family if p.alive()]
        say(f"SIGTERM in a hang: {ended['seconds']}; left then {ended['left'] + ended['helpers_left']}")
        self.server.kill(family)
        await asyncio.gather(waiting, return_exceptions=True)

    # ---- what was measured

    def beside(self, background: Background, begin: float, end: float) -> dict:
        errors, background.errors = background.errors, []
        return {"gap_s": background.largest_gap(begin, end), "tokens": background.gaps.count(begin, end), "seconds": end - begin,
                "models_s": background.slowest_models(begin, end), "polls": background.models.count(begin, end),
                "lag_s": background.lag.largest(begin, end), "lag_at_s": background.lag.when_largest(begin, end), "errors": errors[:5]}

    def note(self, kind: str, answers: list[Answer]) -> None:
        self.measured[kind] = [
            {"seconds": a.seconds, "status": a.status, "hit": a.hit, "cached": a.cached, "exact": a.same_as(self.reference[a.name]),
             "logprob_difference": a.logprob_difference(self.reference[a.name]), "error": a.error} for a in answers]
        say(f"{kind}: {seconds(answers)}, {sum(a.hit for a in answers)} hits, {[a.status for a in answers]}")

    async def numbers(self, when: str) -> None:
        """The server's own metrics; they cannot be had when it does not answer any more."""
        pattern = r"vllm:(kvlane_|external_prefix_cache)(?![a-z_]*_(bucket|created)\b)"
        try:
            found = await asyncio.to_thread(self.server.metrics, pattern)
        except OSError as e:
            found = {"error": repr(e)}
        self.measured.setdefault("metrics", {})[when] = found


def seconds(answers: list[Answer]) -> str:
    return " ".join("-" if a.seconds is None else f"{a.seconds:.2f}" for a in answers)


