"""A member of a crowd: one host's client and a thread that stores, reads, replaces, removes and looks up the keys that all members share.

Everybody writes into one ledger (the model of the soak) before a store or a remove is sent and when it is answered; the ledger judges what each load
brought, once all answers are there.
"""

from __future__ import annotations

import collections
import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kvlane import Client

from blocks import hexes, payload, whose
from hosts import Host
from places import Place
from stage import NAMESPACE, client

sys.path.append(str(Path(__file__).resolve().parents[1] / "chaos"))
from model import Change, Failed, Load, Looked, Model

KEYS = 24
TIMEOUT_MS = 1500
SIZES = (16_384, 65_536, 196_608)


def now_us() -> int:
    return time.monotonic_ns() // 1000


class Ledger:
    """Who stored what under which key, and when; a version is a member's number and its count."""

    def __init__(self) -> None:
        self.keys = hexes(f"crowd {time.monotonic_ns()}", KEYS)
        self.number = {key: number for number, key in enumerate(self.keys)}
        self.size = {key: SIZES[number % len(SIZES)] for number, key in enumerate(self.keys)}
        self.model = Model()
        self.lock = threading.Lock()

    def key(self, key: str) -> tuple[int, int]:
        return 0, self.number[key]

    def begun(self, key: str, version: int) -> Change:
        with self.lock:
            return self.model.begun(self.key(key), version, now_us())

    def ended(self, change: Change, result: Any) -> None:
        code, phase, outcome, source = result.code or "", "", "", result.source
        for failure in result.failed:
            code, phase, outcome, source = failure.code, failure.phase or "", failure.outcome or "", failure.source
        with self.lock:
            self.model.ended(change, code, phase, outcome, source, now_us(), kept=bool(result.kept))

    def issued(self, key: str, known: tuple[int, int] | None) -> bool:
        with self.lock:
            return known is not None and (self.key(key), version_of(*known)) in self.model.known


def version_of(writer: int, count: int) -> int:
    return writer << 32 | count


class Member:
    """Asks at random, by a seed."""

    def __init__(self, number: int, place: Place, kv: Client, ledger: Ledger) -> None:
        self.number, self.place, self.kv, self.ledger = number, place, kv, ledger
        self.random = random.Random(number)
        self.version = 0
        self.counts: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.good_at: list[float] = []
        self.wrong: list[str] = []
        self.seen: dict[str, tuple[int, int]] = {}
        self.late_ms = 0.0
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.ends = 0.0
        self.error: BaseException | None = None

    def start(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.thread.start()

    def _work(self) -> None:
        try:
            while time.monotonic() < self.ends:
                todo: list[Callable[[], object]] = [self.load, self.store, self.replace, self.remove, self.look_and_load]
                self.random.choices(todo, [4, 2, 3, 1, 3])[0]()
        except BaseException as error:
            self.error = error

    def waited(self, task: Any, began: float) -> Any:
        result = self.kv.wait(task)
        self.late_ms = max(self.late_ms, (time.monotonic() - began) * 1000 - TIMEOUT_MS)
        return result

    def load(self, keys: list[str] | None = None) -> dict[str, str]:
        """A code for each key; what came is in `seen`."""
        chosen = keys or self.random.sample(self.ledger.keys, 3)
        codes = {}
        with self.kv.leasing(len(chosen)) as slots:
            began, began_us = time.monotonic(), now_us()
            sizes = [self.ledger.size[key] for key in chosen]
            result = self.waited(self.kv.load(chosen, slots, namespace=NAMESPACE, bytes=sizes, timeout_ms=TIMEOUT_MS), began)
            ended_us = now_us()
            failed = {failure.block: failure.code for failure in result.failed}
            for failure in result.failed:
                if failure.code == "IO_ERROR":
                    self.errors[f"{failure.errno} in {failure.phase}"] += 1
            for number, key in enumerate(chosen):
                code = failed.get(number) or ("OK" if result.ok or result.failed else result.code or "?")
                self.seen.pop(key, None)
                if code == "OK":
                    code = self._brought(key, bytes(slots[number].view[: sizes[number]]), began_us, ended_us)
                elif code == "NOT_FOUND":
                    with self.ledger.lock:
                        miss = Failed("load", *self.ledger.key(key), code, "", "sidecar", began_us, ended_us, self.place.name)
                        self.ledger.model.failures.append(miss)
                self.counts[f"load {code}"] += 1
                codes[key] = code
        return codes

    def _brought(self, key: str, data: bytes, began_us: int, ended_us: int) -> str:
        known = whose(key, data)
        if known is None or not self.ledger.issued(key, known):
            self.wrong.append(f"{key[:12]}: {known}")
            return "WRONG"
        self.seen[key] = known
        self.good_at.append(time.monotonic())
        with self.ledger.lock:
            self.ledger.model.loads.append(Load(self.ledger.key(key), version_of(*known), began_us, ended_us, self.place.name))
        return "OK"

    def store(self, *, replace: bool = False, key: str | None = None) -> Any:
        key = key or self.random.choice(self.ledger.keys)
        size = self.ledger.size[key]
        self.version += 1
        with self.kv.leasing(1, use="store") as slots:
            slots[0].view[:size] = payload(key, self.version, size, self.number)
            change = self.ledger.begun(key, version_of(self.number, self.version))
            began = time.monotonic()
            task = self.kv.store([key], slots, namespace=NAMESPACE, bytes=size, replace=replace, timeout_ms=TIMEOUT_MS)
            result = self.waited(task, began)
            self.ledger.ended(change, result)
        word = "replace" if replace else "store"
        self.counts[f"{word} {'kept' if result.kept else result.code or 'OK'}"] += 1
        if result.ok:
            self.good_at.append(time.monotonic())
        return result

    def replace(self) -> None:
        self.store(replace=True)

    def remove(self, key: str | None = None) -> Any:
        key = key or self.random.choice(self.ledger.keys)
        change = self.ledger.begun(key, 0)
        began = time.monotonic()
        result = self.waited(self.kv.remove([key], namespace=NAMESPACE, timeout_ms=TIMEOUT_MS), began)
        self.ledger.ended(change, result)
        self.counts[f"remove {result.code or 'OK'}"] += 1
        return result

    def present(self, keys: list[str]) -> tuple[bool | None, ...]:
        began, began_us = time.monotonic(), now_us()
        result = self.waited(self.kv.lookup(keys, namespace=NAMESPACE, timeout_ms=TIMEOUT_MS), began)
        self.counts[f"lookup {result.code or 'OK'}"] += 1
        with self.ledger.lock:
            for key, there in zip(keys, result.present, strict=False):
                if there is not None:
                    self.ledger.model.looks.append(Looked(self.ledger.key(key), there, began_us, now_us(), self.place.name))
        return tuple(result.present) or (None,) * len(keys)

    def look_and_load(self) -> None:
        chosen = self.random.sample(self.ledger.keys, 3)
        hits = [key for key, there in zip(chosen, self.present(chosen), strict=True) if there]
        if not hits:
            return
        for code in self.load(hits).values():
            self.counts["hit then " + code] += 1


@contextlib.contextmanager
def members(hosted: list[tuple[Host, str]], ledger: Ledger, kind: type[Member] = Member, **options: Any) -> Iterator[list[Member]]:
    with contextlib.ExitStack() as stack:
        made = []
        for number, (host, root) in enumerate(hosted, start=1):
            place = Place(name=host.name, root=root, outside=Path(host.path(root)), version="", ways=[], host=host)
            engine = ("threads", "aio")[number % 2]
            kv = client(place, engine, timeout_ms=TIMEOUT_MS, **options)
            stack.callback(kv.close)
            kv.wait_ready(30_000)
            made.append(kind(number, place, kv, ledger))
        yield made
