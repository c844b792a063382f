"""The engine that a client process plays: threads that ask one thing after the other and wait, or tasks of an event loop that do."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Any

from kvlane import AsyncClient, Client, SidecarGone
from kvlane.errors import NoAnswer, Saturated, SlotNotLeased
from kvlane.results import Result

from answers import Answers
from asking import NAMESPACE, Asked, think
from metronome import now_us

THREADS, TASKS = 3, 4
STUCK_MS = 200


class Play:
    """Plays while `active` is set. `busy` requests are under way."""

    def __init__(self, answers: Answers, dice: random.Random) -> None:
        self.answers, self.random = answers, dice
        self.active = threading.Event()
        self.ending = False
        self.busy = 0
        self.lock = threading.Lock()

    def refused(self, error: Exception) -> None:
        """A sidecar that is stopped, dead or full. The pause is the caller's."""
        self.answers.ops["stuck, no answer" if isinstance(error, NoAnswer) else "refused at once"] += 1

    # --- threads -----------------------------------------------------------------------------------------------------

    def with_threads(self, client: Client) -> None:
        for _ in range(THREADS):
            threading.Thread(target=self._thread, args=(client,), daemon=True).start()

    def _thread(self, client: Client) -> None:
        while not self.ending:
            if not self.active.wait(0.05):
                continue
            with self.lock:
                self.busy += 1
            try:
                if self.active.is_set():
                    self._ask(client, think(self.random))
            except (SidecarGone, Saturated, SlotNotLeased, NoAnswer) as error:
                self.refused(error)
                time.sleep(0.005)
            finally:
                with self.lock:
                    self.busy -= 1

    def _ask(self, client: Client, asked: Asked) -> None:
        if asked.op == "ping":
            client.stuck(STUCK_MS)
            self.answers.ops["stuck"] += 1
            return
        slots = self._slots(client, asked)
        if slots is None:
            time.sleep(0.002)
            return
        try:
            number = self.answers.before(asked, slots)
            begun_us = now_us()
            task = _send(client, asked, slots)
            if asked.cancel_s >= 0:
                time.sleep(asked.cancel_s)
                client.cancel(task)
            result: Result | None = client.wait(task)
            end_us = now_us()
            if result is None:
                self.answers.log.violation("lost answer", f"{asked}: wait() returned without a result {end_us - task.deadline_us} us after the deadline")
            self.answers.after(asked, number, slots, begun_us, task.deadline_us, end_us, result)
            slots = self.answers.keep_canaries(asked, slots, result)
        finally:
            client.release(slots)

    # --- tasks -------------------------------------------------------------------------------------------------------

    def with_tasks(self, client: AsyncClient) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._task(client)) for _ in range(TASKS)]

    async def _task(self, client: AsyncClient) -> None:
        while not self.ending:
            if not self.active.is_set():
                await asyncio.sleep(0.01)
                continue
            self.busy += 1
            try:
                await self._await(client, think(self.random))
            except (SidecarGone, Saturated, SlotNotLeased, NoAnswer) as error:
                self.refused(error)
                await asyncio.sleep(0.005)
            except Exception as error:
                self.answers.log.violation("client failed", repr(error))
                raise
            finally:
                self.busy -= 1

    async def _await(self, client: AsyncClient, asked: Asked) -> None:
        if asked.op == "ping":
            await client.stuck(STUCK_MS)
            self.answers.ops["stuck"] += 1
            return
        slots = self._slots(client, asked)
        if slots is None:
            await asyncio.sleep(0.002)
            return
        result: Result | None = None
        try:
            number = self.answers.before(asked, slots)
            begun_us = now_us()
            task = asyncio.ensure_future(_send(client, asked, slots))
            if asked.cancel_s >= 0:
                await asyncio.sleep(asked.cancel_s)
                task.cancel()
            try:
                result = await task
            except asyncio.CancelledError:
                if asked.cancel_s < 0:
                    raise
            end_us = now_us()
            self.answers.after(asked, number, slots, begun_us, begun_us + asked.timeout_ms * 1000, end_us, result)
            slots = self.answers.keep_canaries(asked, slots, result)
        finally:
            client.release(slots)

    # --- both --------------------------------------------------------------------------------------------------------

    def _slots(self, client: Any, asked: Asked) -> list[Any] | None:
        """None: there are none just now."""
        if asked.op not in ("load", "store"):
            return []
        slots: list[Any] | None = client.try_lease(len(asked.keys), mount=f"kv{asked.mount}", use=asked.op)
        if slots is None:
            self.answers.ops["no slots"] += 1
        return slots


def _send(client: Any, asked: Asked, slots: list[Any]) -> Any:
    """A task, or what can be awaited."""
    words: dict[str, Any] = {"namespace": NAMESPACE, "mount": f"kv{asked.mount}", "timeout_ms": asked.timeout_ms}
    if asked.op == "load":
        return client.load(asked.hexes(), slots, bytes=asked.lengths(), **words)
    if asked.op == "store":
        return client.store(asked.hexes(), slots, bytes=asked.lengths(), replace=asked.replace, **words)
    return (client.lookup if asked.op == "lookup" else client.remove)(asked.hexes(), **words)
