"""What must hold while a mount does not answer, when it does again, and when the sidecar is told to leave meanwhile.

Stuck things are asked for through the client only: this process never touches the mount itself until it is healed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from kvlane import Client

from blocks import hexes, payload, whose
from checks import Checks, eventually
from places import Place, Way
from stage import LATE_MS, NAMESPACE, REFUSED_MS, SLOT_BYTES, Stage, Witness, staged

TIMEOUT_MS = 500
OPENS_S = 10.0  # stall_ms is 300; two loaded cores
BACK_S = 3.0  # after the witness heard the mount: a second is promised, the rest is for two loaded cores
WIRE_S = 45.0  # how long TCP may take to try again after a cut of some seconds, at the very most
PATTERN = 0xA5


def hang(checks: Checks, place: Place, engine: str, way: Way, hold_s: float, wire_s: float = WIRE_S) -> None:
    events: list[tuple[float, dict[str, Any]]] = []
    with staged(checks, place, engine, gone_s=20 if wire_s == WIRE_S else 0.1) as stage:
        stage.kv.on_event(lambda event: events.append((time.monotonic(), dict(event))))
        story = Story(stage, way, events)
        witness = Witness(place)
        try:
            story.prepare()
            began = time.monotonic()
            way.hang()
            try:
                story.everything_at_once()
                story.breakers_open()
                story.refusals()
                story.hold_pattern()
                time.sleep(max(0.0, began + max(way.hold_s, hold_s) - time.monotonic()))
            finally:
                healed = time.monotonic()
                way.heal()
            story.back(witness, healed, began, wire_s)
            story.late(healed + wire_s)
        finally:
            story.release()
            witness.end()
        stage.check(stage.late_ms < LATE_MS, f"{way.name}: every request is answered by its deadline", f"{stage.late_ms:.0f} ms late")
        checks.say(f"   {stage}, {way.name}: at most {stage.late_ms:.0f} ms past a deadline; {story.told}")
        checks.fact(place.name, f"{way.name}, {engine}", story.told)


class Story:
    def __init__(self, stage: Stage, way: Way, events: list[tuple[float, dict[str, Any]]]) -> None:
        self.stage, self.way, self.events = stage, way, events
        mark = f"{stage.engine} {way.name} {time.monotonic_ns()}"
        self.there, self.replaced = hexes(mark, 12), hexes(mark + " replaced", 2)
        self.fresh = iter(hexes(mark + " stored in the hang", 400))
        self.tried: list[str] = []
        self.mine: list[Any] = []
        self.opened: dict[str, float] = {}
        self.told = ""

    def check(self, good: object, sentence: str, seen: object = None) -> bool:
        return self.stage.check(good, f"{self.way.name}: {sentence}", seen)

    def prepare(self) -> None:
        stage = self.stage
        with contextlib.suppress(TimeoutError):  # after the last hang some servers take a while to find each other
            eventually("it stores", lambda: stage.store([*self.there, *self.replaced]).ok, WIRE_S if stage.place.host else 0.1, 0.2)
        stored = stage.store([*self.there, *self.replaced])
        self.check(stored.ok, "well before: it stores", stored)
        _, seen = stage.load(self.there)
        self.check(set(seen.values()) == {1}, "well before: it loads", seen)
        found = stage.lookup(self.there)
        self.check(found.prefix == 12, "well before: it looks up", found)
        if stage.place.host is None:
            stage.out_of_the_cache(self.there)

    def everything_at_once(self) -> None:
        """Loads, stores, a replacement and look-ups, all in flight when nothing answers."""
        stage, kv = self.stage, self.stage.kv
        new = [next(self.fresh) for _ in range(4)]
        self.tried += new
        loading, storing, replacing = kv.lease(4), kv.lease(4, use="store"), kv.lease(2, use="store")
        for slot, key in zip(storing, new, strict=True):
            slot.view[:] = payload(key, 1, SLOT_BYTES)
        for slot, key in zip(replacing, self.replaced, strict=True):
            slot.view[:] = payload(key, 2, SLOT_BYTES)
        began = time.monotonic()
        there = self.there[:4]
        tasks: list[Any] = [kv.load([key], [slot], namespace=NAMESPACE, timeout_ms=TIMEOUT_MS) for key, slot in zip(there, loading, strict=True)]
        tasks += [kv.store([key], [slot], namespace=NAMESPACE, timeout_ms=TIMEOUT_MS) for key, slot in zip(new, storing, strict=True)]
        tasks += [kv.store(self.replaced, replacing, namespace=NAMESPACE, replace=True, timeout_ms=TIMEOUT_MS)]
        tasks += [kv.lookup([f"{n:02x}" * 8 for n in range(16)], namespace=f"unknown{time.monotonic_ns()}", timeout_ms=TIMEOUT_MS)]
        results = [stage.waited(task, TIMEOUT_MS, began) for task in tasks]
        late = [result for result in results if result.source == "client" and result.code == "DEADLINE_EXCEEDED"]
        # On two loaded cores the client's own clock is first now and then, 20 ms after the deadline.
        self.check(2 * len(late) < len(results), "the sidecar itself has the word, not the client's clock", late)
        good = [result for result in results[4:9] if result.ok]
        self.check(not good, "no store is answered as done", good)
        if self.way.loads:
            self.check(not any(result.ok for result in results[:4]), "no load is answered as done", results[:4])
        else:
            self.check(all(result.ok for result in results[:4]), "loads go on", results[:4])
        if self.way.names:
            self.check(not results[9].complete, "no look-up of unknown names is complete", results[9])
        kv.release([*loading, *storing, *replacing])

    def breakers_open(self) -> None:
        """Asks on, once at a time, until each class that hangs is refused."""
        wanted: dict[str, Callable[[], Any]] = {"store": self.one_store}
        if self.way.loads:
            wanted["load"] = self.one_load
        if self.way.names:
            wanted["metadata"] = self.one_lookup
        for name, ask in wanted.items():
            began, code = time.monotonic(), None
            while code != "MOUNT_SUSPENDED" and time.monotonic() - began < OPENS_S:
                code = ask()
            self.check(code == "MOUNT_SUSPENDED", f"the breaker of {name}s opens", code)
            self.opened[name] = time.monotonic()

    def one_store(self) -> Any:
        key = next(self.fresh)
        self.tried.append(key)
        return _code(self.stage.store([key], timeout_ms=TIMEOUT_MS))

    def one_load(self) -> Any:
        return self.stage.load([self.there[len(self.opened)]], timeout_ms=TIMEOUT_MS)[1].popitem()[1]

    def one_lookup(self) -> Any:
        return _code(self.stage.lookup([os.urandom(16).hex()], TIMEOUT_MS))

    def refusals(self) -> None:
        asks = [self.one_store] * 4 + ([self.one_load] * 8 if self.way.loads else []) + ([self.one_lookup] * 4 if self.way.names else [])
        times, codes = [], []
        for ask in asks:
            began = time.monotonic()
            codes.append(ask())
            times.append((time.monotonic() - began) * 1000)
        self.check(set(codes) == {"MOUNT_SUSPENDED"}, "while it is open everything is refused", codes)
        self.check(sorted(times)[len(times) // 2] < REFUSED_MS, "and at once", times)
        self.told = f"refused in {sorted(times)[len(times) // 2]:.1f} ms"
        stuck = self.stage.kv.stuck(5000)
        self.check(stuck, "it says what is stuck", stuck)

    def hold_pattern(self) -> None:
        """Everything that may be leased gets a pattern: a late byte in any of it would be seen."""
        while (got := self.stage.kv.try_lease(1)) is not None:
            got[0].view[:] = bytes([PATTERN]) * SLOT_BYTES
            self.mine += got
        self.check(len(self.mine) >= 8, "there is memory left to lease", len(self.mine))

    def back(self, witness: Witness, healed: float, began: float, wire_s: float) -> None:
        stage = self.stage
        spare = [self.mine.pop() for _ in range(4)]
        _unchanged = all(slot.view == bytes([PATTERN]) * SLOT_BYTES for slot in spare)
        self.check(_unchanged, "late loads changed nothing (memory given away)")
        stage.kv.release(spare)
        heard_s = eventually("the witness hears the mount", lambda: witness.answered_since(healed), wire_s)
        code: Any = None
        while code != 1 and time.monotonic() - healed < heard_s + OPENS_S:
            code = stage.load(self.there[:1], timeout_ms=TIMEOUT_MS)[1][self.there[0]]
        hit_s = time.monotonic() - healed
        self.check(code == 1, "healed: loads hit again", code)
        self.check(hit_s < heard_s + BACK_S, "healed: soon after the mount answers", f"mount {heard_s:.2f} s, hit {hit_s:.2f} s")
        # What the witness reads comes from one server; a store may want another, to which the file system's client has to find its way again.
        stored = None
        while (stored is None or not stored.ok) and time.monotonic() - healed < max(wire_s if stage.place.host else 0, heard_s + OPENS_S):
            key = next(self.fresh)
            self.tried.append(key)
            stored = stage.store([key], timeout_ms=TIMEOUT_MS)
            if not stored.ok:
                time.sleep(0.2)  # not all of `fresh` in a second of refusals
        self.check(stored is not None and stored.ok, "healed: stores go through again", stored)
        found = None
        while (found is None or not found.complete) and time.monotonic() - healed < heard_s + OPENS_S:
            found = stage.lookup(self.there, TIMEOUT_MS)
        self.check(found is not None and found.prefix == 12, "healed: look-ups find again", found)
        all_s = time.monotonic() - healed

        def closed() -> bool:
            return self.last_states() <= {"ok"}

        with contextlib.suppress(TimeoutError):
            eventually("the breakers close", closed, OPENS_S)
        self.check(closed(), "healed: every breaker closes", self.last_states())
        self.told += (
            f"; hung {healed - began:.1f} s; after the heal the mount answered in {heard_s:.2f} s, the first hit came after {hit_s:.2f} s, "
            f"all three classes after {all_s:.2f} s"
        )

    def last_states(self) -> set[str]:
        """What each class was said to be last."""
        last = {event["class"]: event["state"] for _, event in self.events if event.get("event") == "mount" and "class" in event}
        return set(last.values())

    def late(self, until: float) -> None:
        """Everything has come back: what did the late calls do?"""
        stage = self.stage
        eventually("nothing is stuck any more", lambda: not stage.kv.stuck(5000), max(OPENS_S, until - time.monotonic()), 0.02)
        wrong = sum(bytes(slot.view) != bytes([PATTERN]) * SLOT_BYTES for slot in self.mine)
        self.check(wrong == 0, "late IO changed nothing (memory that was given away)", f"{wrong} of {len(self.mine)} slots")
        self.release()
        seen: dict[str, Any] = {}
        for first in range(0, len(self.tried), 8):
            seen |= stage.load(self.tried[first : first + 8])[1]
        self.check(set(seen.values()) <= {1, "NOT_FOUND"}, "a store that was given up is absent or whole", seen)
        _, kept = stage.load(self.replaced)
        self.check(set(kept.values()) <= {1, 2}, "a replacement that was given up left the old block or the new one, whole", kept)
        _, good = stage.load(self.there)
        self.check(set(good.values()) == {1}, "all that was there before is there", good)
        leftovers: list[str] = []

        def tidy() -> bool:
            leftovers[:] = [name for name in stage.files() if ".tmp" in name and not name.startswith("probe/")]
            return not leftovers

        with contextlib.suppress(TimeoutError):
            eventually("no temporary is left", tidy, 10, 0.05)
        self.check(not leftovers, "given-up stores left no temporary", leftovers)
        aside = stage.kv.stats(5000)["files_set_aside"]
        self.check(aside == 0, "nothing was set aside", aside)

    def release(self) -> None:
        self.stage.kv.release(self.mine)
        self.mine = []


def _code(result: Any) -> Any:
    return result.code or "OK"


def leaving(checks: Checks, place: Place, engine: str, way: Way) -> None:
    """SIGTERM while loads are in the kernel: it answers, leaves within its bound, and nothing is left after the heal."""
    with staged(checks, place, engine, close_timeout_ms=500) as stage:
        kv: Client = stage.kv
        keys = hexes(f"{engine} leaving", 4)
        stage.store(keys)
        pid = kv.pid
        assert pid is not None
        slots = kv.lease(4)
        way.hang()
        try:
            task = kv.load(keys, slots, namespace=NAMESPACE, timeout_ms=60_000)
            eventually("the kernel holds the loads", lambda: kv.stuck(5000), 10, 0.02)
            os.kill(pid, signal.SIGTERM)
            began = time.monotonic()
            result = kv.wait(task, 5000)
            answered_s = time.monotonic() - began
            stage.check(result is not None and result.code == "SHUTTING_DOWN", f"{way.name}: SIGTERM: what is outstanding is answered", result)
            stage.check(answered_s < 1.5, f"{way.name}: SIGTERM: within its bound", f"{answered_s:.2f} s")
            began = time.monotonic()
            kv.close()
            closed_s = time.monotonic() - began
            stage.check(closed_s < 1.5, f"{way.name}: the client is closed while the mount is stuck", f"{closed_s:.2f} s")
            checks.say(f"   {stage}, {way.name}: answered {answered_s * 1000:.0f} ms after SIGTERM, closed in {closed_s * 1000:.0f} ms")
        finally:
            way.heal()
    # A probe under way leaves its own behind, as a store would: a sidecar that leaves cleans up nothing that hangs.
    names = [name for name in stage.files() if ".tmp" in name and not name.startswith("probe/")]
    stage.check(not names, f"{way.name}: SIGTERM: no temporary is left", names)


def not_healed(checks: Checks, place: Place, way: Way) -> None:
    """The planted fault: a cut that nobody mends, until the story is over."""
    lazy = dataclasses.replace(way, heal=lambda: None)
    try:
        hang(checks, place, "threads", lazy, 0.5, 3)
    except TimeoutError as error:
        checks.check(False, f"{way.name}: healed: loads hit again", error)
    finally:
        way.heal()


__all__ = ["hang", "leaving", "not_healed", "whose"]
