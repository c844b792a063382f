"""One client process under test: worker.py JSON. Reads commands on stdin, writes everything it sees into its log, line by line.

It plays an engine (playing.py), looks at every answer (answers.py), and tells of its sidecars: which were there, why they were given up,
how they ended. Commands: quiet (finish, wait until all is back, measure), go, end.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from kvlane import AsyncClient, Client, Options

import observe
import resting
from answers import Answers, Log
from asking import SLOT_BYTES, SLOTS, TIMEOUTS_MS
from metronome import now_us
from playing import Play

SETTLE_S = 10.0
"""Beyond every deadline: what is not settled by then is lost."""
LANES = 2
LOOK_S = 0.25
ENDED = re.compile(r"pid (\d+) (was ended by signal \d+|exited with status \d+|ended, and somebody else reaped it)")


class Worker:
    def __init__(self, setup: dict[str, Any]) -> None:
        self.kind: str = setup["kind"]
        self.incarnation: int = setup["incarnation"]
        self.log = Log(setup["name"], setup["log"])
        threading.excepthook = lambda args: self.failed(args.exc_value)
        mounts = {f"kv{i}": root for i, root in enumerate(setup["roots"])}
        self.options = Options(
            mounts=mounts, create=True, slot_bytes=SLOT_BYTES, slots=SLOTS, timeout_ms=250, huge_pages="off", engine=setup["engine"],
            lanes=LANES, stuck_max=setup["stuck_max"], stall_ms=100, heartbeat_ms=100, mute_ms=600, backoff_max_ms=400, backoff_first_ms=30,
            sidecar=setup["sidecar"], environment=setup["environment"], extra_arguments=setup["arguments"],
        )  # fmt: skip
        for spoil in setup.get("spoil", []):
            exec(spoil, {})  # a planted fault of the client: plants.py
        dice = random.Random(setup["seed"])
        self.answers = Answers(self.log, dice, self.incarnation << 32)
        self.play = Play(self.answers, dice)
        self.client: Client | None = None
        self.ended: set[str] = set()

    def failed(self, error: BaseException | None) -> None:
        told = "".join(traceback.format_exception(error)) if error else ""
        self.log.violation("client failed", f"{error!r} {told[-1200:]}")

    def told(self, event: Any) -> None:
        if event["event"] == "sidecar" and event["state"] == "restarting" and event["was"] != "off":
            log = self.client.sidecar_log()[-30:] if self.client else ()
            self.log.record(t="death", at=now_us(), life=event["life"], reason=event["reason"], log=log)
        self.answers.counted[f"event {event['event']} {event.get('state', '')}".strip()] += 1

    def watch(self, client: Client) -> None:
        """Tells of new sidecars and of how they ended, and looks at the caps while things are stuck."""
        pid, looked = 0, 0.0
        while not self.play.ending:
            time.sleep(0.005)
            life, now = client.life, client.pid or 0
            if now != pid and client.ready is not None and (client.life, client.pid) == (life, now):
                pid = now
                self.log.record(t="sidecar", at=now_us(), pid=pid, life=life)
            if time.monotonic() - looked < LOOK_S or not self.play.active.is_set():
                continue
            looked = time.monotonic()
            self.look_at_ends(client)
            self.answers.look_at_canaries()
            try:
                stats = client.stats(200)
            except Exception:  # it may be stopped, dead or gone
                continue
            self.answers.ops["stats"] += 1
            for text in observe.over_caps(stats, lanes=LANES, stuck_max=self.options.stuck_max or 0):
                self.log.violation("over the cap", text)

    def look_at_ends(self, client: Client) -> None:
        for pid, how in {match.groups() for note in client.notes() if (match := ENDED.search(note))}:
            if pid not in self.ended:
                self.ended.add(pid)
                self.log.record(t="ended", at=now_us(), pid=int(pid), how=how)

    # --- the two clients -----------------------------------------------------------------------------------------------

    def run_sync(self) -> None:
        client = self.client = Client(self.options)
        client.on_event(self.told)
        client.wait_ready()
        threading.Thread(target=self.watch, args=(client,), daemon=True).start()
        self.play.with_threads(client)
        self.obey(client)
        client.close()

    async def run_async(self) -> None:
        client = AsyncClient(self.options)
        client.on_event(self.told)
        await client.wait_ready()
        inner = self.client = client._client  # the same core; what waits below waits in a thread of its own
        threading.Thread(target=self.watch, args=(inner,), daemon=True).start()
        players = self.play.with_tasks(client)
        await asyncio.to_thread(self.obey, inner)
        for player in players:
            player.cancel()
        await client.close()

    # --- commands ----------------------------------------------------------------------------------------------------

    def obey(self, client: Client) -> None:
        self.log.record(t="ready", at=now_us(), pid=client.pid)
        for line in sys.stdin:
            command = line.strip()
            if command == "go":
                self.play.active.set()
            elif command == "quiet":
                self.quiet(client)
            elif command == "end":
                break
        self.play.ending = True
        self.play.active.clear()

    def quiet(self, client: Client) -> None:
        self.play.active.clear()
        if not eventually(lambda: self.play.busy == 0, max(TIMEOUTS_MS) / 1000 + SETTLE_S):
            about = f"{self.play.busy} requests are not settled {SETTLE_S} s after the longest deadline: {client.client_stats()}"
            self.log.violation("lost answer", about)
        back = resting.wait_back(client, self.answers)
        resting.usable(client, self.answers, self.incarnation)
        self.look_at_ends(client)
        figures = resting.measure(client, self.answers, back)
        self.log.record(t="quiet", at=now_us(), notes=client.notes()[-20:], log=client.sidecar_log()[-40:], **figures)


def eventually(true: Callable[[], bool], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while not true():
        if time.monotonic() > limit:
            return False
        time.sleep(0.005)
    return True


def main() -> None:
    worker = Worker(json.loads(sys.argv[1]))
    try:
        asyncio.run(worker.run_async()) if worker.kind == "async" else worker.run_sync()
    except BaseException as error:
        worker.failed(error)
        os._exit(3)
    worker.log.record(t="left", at=now_us())
    os._exit(0)


if __name__ == "__main__":
    main()
