"""What one client makes of each answer: whether it adds up, whether it came in time, and whether the bytes are those that somebody stored.

What only all clients together can know (which version a load may bring) is written into the log, for model.py. Each change is logged before
it is asked for, so that what a killed client had under way is known. Slots that were called free after a late answer are kept for a
while, filled with a canary: the kernel must not write there.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections import Counter
from typing import Any

from kvlane.errors import SlotNotLeased
from kvlane.results import BlocksResult, LookupResult, Result

import payload
from asking import Asked
from metronome import Metronome, now_us

GRACE_US = 20_000
OVERSHOOT_US = 250_000
"""Beyond the deadline, the client's grace and what this process itself was late: nobody can be this late on a machine that runs."""
CANARIES = 8
ERRNO = re.compile(r"\bE[A-Z]{2,}\b")

Block = tuple[str, str, str, str, str, int]  # code, phase, outcome, errno, source, version


class Log:
    """Line by line, whole lines only. A log that cannot be written is the end: nobody would know what was seen."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def record(self, **fields: Any) -> None:
        line = json.dumps({"who": self.name, **fields}, separators=(",", ":")).encode() + b"\n"
        try:
            written = os.write(self._file, line)
        except OSError as error:
            written, line = 0, str(error).encode()
        if written != len(line):
            os.write(2, b"the log cannot be written: " + line[:200] + b"\n")
            os._exit(4)

    def violation(self, kind: str, text: str) -> None:
        self.record(t="violation", at=now_us(), kind=kind, text=text[:1500])


class Answers:
    def __init__(self, log: Log, dice: random.Random, first_version: int) -> None:
        self.log, self.random = log, dice
        self.metronome = Metronome()
        self.lock = threading.Lock()
        self.numbers, self.versions = 0, first_version
        self.ops: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        self.overshoot: list[int] = []
        self.deadlines = {"deadline": 0, "by_client": 0, "early": 0}
        self.canaries: list[tuple[float, Any]] = []

    def before(self, asked: Asked, slots: list[Any]) -> int:
        """Fills the slots, and logs what may change from here on; the number of the request."""
        versions: list[int] = []
        with self.lock:
            self.numbers += 1
            number = self.numbers
            for _ in asked.keys:
                self.versions += asked.op == "store"
                versions.append(self.versions if asked.op == "store" else 0)
        for key, slot, version, length in zip(asked.keys, slots, versions, asked.lengths(), strict=False):
            if asked.op == "store":
                payload.write(slot.view, asked.mount, key, version, length)
            else:
                payload.poison(slot.view, length)
        if asked.op in ("store", "remove"):
            self.log.record(t="begin", n=number, at=now_us(), mount=asked.mount, changes=list(zip(asked.keys, versions, strict=True)))
        return number

    def after(self, asked: Asked, number: int, slots: list[Any], begun_us: int, deadline_us: int, end_us: int, result: Result | None) -> None:
        """Judges one answer. None: the await was cancelled, and nobody will say what became of it."""
        blocks: list[Block] = [("", "", "", "", "sidecar", 0)] * len(asked.keys)
        present: list[bool | None] = []
        self.ops[asked.op] += 1
        kept = 0
        if result is None:
            blocks = [("CANCELLED", "", "unknown", "", "client", 0)] * len(asked.keys)
        elif isinstance(result, BlocksResult):
            kept = result.kept
            for failure in result.failed:
                blocks[failure.block] = (failure.code, failure.phase or "", failure.outcome or "", failure.errno or "", failure.source, 0)
            if result.done + len(result.failed) != len(asked.keys):
                self.log.violation("answer does not add up", f"{asked}: done {result.done}, failed {len(result.failed)}")
            self._bytes(asked, slots, blocks, {failure.block for failure in result.failed})
        elif isinstance(result, LookupResult) and result.ok:
            present = list(result.present)
            leading = next((n for n, there in enumerate(present) if there is not True), len(present))
            if len(present) != len(asked.keys) or result.prefix != leading or result.complete != (None not in present):
                self.log.violation("answer does not add up", f"{asked}: {result}")
        elif not result.ok:
            errno = ERRNO.search(result.message or "")
            blocks = [(result.code or "?", "", "unknown", errno[0] if errno else "", result.source, 0)] * len(asked.keys)
        for code, *_, version in blocks:
            self.codes[code or "ok"] += 1
            if asked.op == "load" and not code and version:
                self.counted["loaded"] += 1
        if asked.cancel_s < 0 and any(code == "CANCELLED" for code, *_ in blocks):
            self.log.violation("wrong code", f"{asked}: CANCELLED, and nobody had asked for that")
        late = [block for block in blocks if block[0] == "DEADLINE_EXCEEDED"]
        if late:
            self.deadlines["deadline"] += 1
            self.deadlines["by_client"] += late[0][4] == "client"
        own_us = self._clock(asked, deadline_us, end_us, bool(late), late[0][4] if late else "")
        self.log.record(
            t="end", n=number, op=asked.op, mount=asked.mount, keys=asked.keys, at=begun_us, end=end_us, deadline=deadline_us, own=own_us, kept=kept,
            blocks=blocks, present=present,
        )  # fmt: skip

    def _clock(self, asked: Asked, deadline_us: int, end_us: int, deadline: bool, source: str) -> int:
        """How late this process itself was, where that matters."""
        over_us = end_us - deadline_us
        if deadline:
            self.overshoot.append(over_us)
            if over_us < 0 or (source == "client" and over_us < GRACE_US):
                self.deadlines["early"] += 1
                self.log.violation("early answer", f"{asked}: DEADLINE_EXCEEDED by the {source} {over_us} us after the deadline")
        if over_us > GRACE_US + OVERSHOOT_US:
            own_us = self.metronome.late_us(deadline_us, end_us)
            if over_us - own_us > GRACE_US + OVERSHOOT_US:
                self.log.violation("late answer", f"{asked}: {over_us} us after the deadline; this process itself was {own_us} us late then")
        return self.metronome.asleep_us(deadline_us, end_us) if deadline and over_us > GRACE_US // 2 else 0

    def _bytes(self, asked: Asked, slots: list[Any], blocks: list[Block], failed: set[int]) -> None:
        for block, (key, slot, length) in enumerate(zip(asked.keys, slots, asked.lengths(), strict=False)):
            try:
                if asked.op == "load" and block not in failed:
                    blocks[block] = ("", "", "", "", "sidecar", payload.read(slot.view, asked.mount, key, length))
                elif asked.op == "store":
                    payload.scribble(slot.view)  # what a late write takes from here is no block
            except payload.WrongBytes as wrong:
                self.log.violation("wrong bytes", f"{asked}: {wrong}")
            except SlotNotLeased:
                if block not in failed:
                    self.counted["life over before the look"] += 1  # answered, and then the sidecar died

    def keep_canaries(self, asked: Asked, slots: list[Any], result: Result | None) -> list[Any]:
        """Slots that stay ours for a while. Returns those to release now."""
        if asked.op != "load" or not isinstance(result, BlocksResult) or result.source == "client":
            return slots
        late = {f.block for f in result.failed if f.code in ("DEADLINE_EXCEEDED", "CANCELLED")}
        rest = []
        for block, slot in enumerate(slots):
            try:
                with self.lock:
                    if block in late and slot.state == "leased" and len(self.canaries) < CANARIES:
                        payload.scribble(slot.view)
                        self.canaries.append((time.monotonic() + self.random.uniform(0.2, 3), slot))
                        continue
            except SlotNotLeased:
                pass
            rest.append(slot)
        return rest

    def look_at_canaries(self, everything: bool = False) -> None:
        with self.lock:
            due = [c for c in self.canaries if everything or c[0] < time.monotonic()]
            self.canaries = [c for c in self.canaries if c not in due]
        for _, slot in due:
            self.counted["canaries"] += 1
            try:
                if not payload.scribble_intact(slot.view):
                    self.log.violation("late bytes in leased memory", f"slot {slot.index} of life {slot.life} was called free, and was written to afterwards")
            except SlotNotLeased:
                pass
            slot.release()

    def taken(self) -> dict[str, Any]:
        """The counts since the last time."""
        told = {"overshoot": self.overshoot, "late": self.deadlines, "ops": dict(self.ops), "codes": dict(self.codes), "counted": dict(self.counted)}
        self.overshoot, self.deadlines = [], {"deadline": 0, "by_client": 0, "early": 0}
        self.ops, self.codes, self.counted = Counter(), Counter(), Counter()
        return told
