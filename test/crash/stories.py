"""What is done to a store, and what a fresh sidecar finds in it afterwards."""

from __future__ import annotations

import mmap
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar import SHORTER, Sidecar, version_of

HERE = Path(__file__).resolve().parent
SEAM = HERE / "build/seam.so"
MOUNTS = 60  # looked at by one sidecar, which takes 64
NAMES_AT = 20
PAGE_BYTES = NAMES_AT + 4000 * 8
EXT4 = "ef53"
KEY, OTHER, NEIGHBOUR = "llama@1/00c0ffee", "llama@1/00aa01", "llama@1/00bb02"
OLD, NEW, LATER = 1, 2, 3


@dataclass(frozen=True)
class Scenario:
    """`before` is in the store when the sidecar starts; `prelude` it does itself; `last` is what is cut."""

    name: str
    before: Callable[[Sidecar], None]
    prelude: Callable[[Sidecar], None]
    last: Callable[[Sidecar], object]
    recycle: bool = False
    old: bool = False  # the key has a block before
    removes: bool = False
    others: tuple[str, ...] = ()  # keys that have a block before
    passing: str = ""  # a key that the prelude stores, or stores and removes
    record: bool = False  # it is not about a block, but about the namespace's record, which is forced out with and without --fsync


Variant = tuple[Scenario, str, bool]  # engine, --fsync
ABSENT = frozenset({"absent"})


def nothing(_: Sidecar) -> None:
    pass


def store(key: str, version: int, replace: bool = False) -> Callable[[Sidecar], None]:
    def act(sidecar: Sidecar) -> None:
        answer = sidecar.store(key, version, replace=replace)
        assert answer["ok"], answer

    return act


def both(*acts: Callable[[Sidecar], None]) -> Callable[[Sidecar], None]:
    def act(sidecar: Sidecar) -> None:
        for one in acts:
            one(sidecar)

    return act


def remove(key: str) -> Callable[[Sidecar], None]:
    def act(sidecar: Sidecar) -> None:
        answer = sidecar.remove(key)
        assert answer["ok"], answer

    return act


def generation(version: int) -> Callable[[Sidecar], None]:
    def act(sidecar: Sidecar) -> None:
        answer = sidecar.name_space(version, bump=True)
        assert answer["ok"] and answer["state"] == "created", answer

    return act


SCENARIOS = [
    Scenario("a store that makes its directories", nothing, nothing, store(KEY, NEW)),
    Scenario("a store", store(OTHER, OLD), nothing, store(KEY, NEW), others=(OTHER,)),
    Scenario("a replacement", store(KEY, OLD), nothing, store(KEY, NEW, True), old=True),
    Scenario(
        "a store over a recycled file",
        store(NEIGHBOUR, OLD),
        both(store(OTHER, OLD), remove(OTHER)),
        store(KEY, NEW),
        recycle=True,
        others=(NEIGHBOUR,),
        passing=OTHER,
    ),
    Scenario(
        "a replacement over a recycled file",
        both(store(KEY, OLD), store(NEIGHBOUR, OLD)),
        both(store(OTHER, OLD), remove(OTHER)),
        store(KEY, NEW, True),
        recycle=True,
        old=True,
        others=(NEIGHBOUR,),
        passing=OTHER,
    ),
    Scenario("a removal that recycles", store(KEY, OLD), store(OTHER, OLD), remove(KEY), recycle=True, old=True, removes=True, passing=OTHER),
    Scenario("the first record of a namespace", nothing, nothing, generation(NEW), record=True),
    Scenario("a new generation of a namespace", generation(OLD), nothing, generation(NEW), old=True, record=True),
]


def was_recycled(sidecar: Sidecar, scenario: Scenario) -> None:
    """Or the story is not what its name says."""
    answer = sidecar.ask(op="stats")
    figures = answer["stats"]["mounts"][0]["recycling"]
    if scenario.recycle and not (figures["on"] and figures["kept"] >= 1 and figures["recycled"] >= (0 if scenario.removes else 1)):
        raise RuntimeError(f"{scenario.name}: nothing was recycled: {figures}")


class Seam:
    """What the test shares with the library between the lanes and the kernel."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "seam"
        self.file.write_bytes(bytes(PAGE_BYTES))
        with self.file.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), PAGE_BYTES)

    def environment(self, plant: str = "", kind: str = "") -> dict[str, str]:
        return {
            "LD_PRELOAD": str(SEAM),
            "KVLANE_SEAM": str(self.file),
            **({"KVLANE_SEAM_PLANT": plant} if plant else {}),
            **({"KVLANE_SEAM_TYPE": kind} if kind else {}),
        }

    def calls(self) -> int:
        return int(struct.unpack_from("<I", self.page)[0])

    def reset(self) -> None:
        self.page[:] = bytes(PAGE_BYTES)

    def kill_at(self, call: int, how: int, torn_bytes: int = 0) -> None:
        struct.pack_into("<III", self.page, 4, call, how, torn_bytes)

    def names(self, first: int, last: int) -> list[str]:
        return [self.page[NAMES_AT + 8 * i : NAMES_AT + 8 + 8 * i].split(b"\0")[0].decode() for i in range(first, last)]

    def died(self) -> bool:
        return int(struct.unpack_from("<I", self.page, 16)[0]) != 0


# ---- looking at what is there ----


@dataclass
class Look:
    """One store after its end: where it lies, what its key may hold, and what others may (if they are not absent)."""

    root: Path
    what: str
    allowed: frozenset[str]
    others: dict[str, frozenset[str]]
    record: bool = False


def look(looks: list[Look], counts: Counter[str], faults: list[str], *options: str, seam: dict[str, str] | None = None) -> None:
    """A fresh sidecar on all of them: loads, then stores over whatever was left, then loads that."""
    sidecar = Sidecar([one.root for one in looks], *options, seam=seam)
    for i, one in enumerate(looks):
        if one.record:
            look_at_record(sidecar, i, one, counts, faults)
            continue
        for key in (KEY, OTHER, NEIGHBOUR):
            found = sidecar.load(key, mount=i)
            if isinstance(found, bytes):
                version = version_of(key, found, LATER)
                state = {None: "WRONG BYTES", OLD: "old", NEW: "new"}.get(version, "WRONG BYTES")
            else:
                state = {"NOT_FOUND": "absent", "CORRUPT": "CORRUPT"}.get(found, found)
            if key == KEY:
                counts[state] += 1
            if state not in (one.allowed if key == KEY else one.others.get(key, ABSENT)):
                faults.append(f"{one.what}: {key} is {state}")
        counts["left temporaries"] += sum(1 for _ in one.root.glob("blocks/*/*/*.tmp"))
        counts["left in recycle/"] += sum(1 for _ in one.root.glob("recycle/*/*"))
        # Shorter than what lies about: whoever writes into a file that was left there shows.
        answer = sidecar.store(KEY, LATER, mount=i, replace=True, length=SHORTER)
        again = sidecar.load(KEY, mount=i)
        if not answer["ok"] or not isinstance(again, bytes) or version_of(KEY, again, LATER) != LATER:
            how = again if isinstance(again, str) else "other bytes"
            faults.append(f"{one.what}: afterwards the key cannot be stored and loaded: {how if answer['ok'] else answer}")
    sidecar.end()
    for one in looks:
        shutil.rmtree(one.root, ignore_errors=True)


def look_at_record(sidecar: Sidecar, mount: int, one: Look, counts: Counter[str], faults: list[str]) -> None:
    """Which generation it names; the next one must have a number of its own."""
    answer = sidecar.name_space(NEW, mount=mount)
    state = {"matches": "new", "created": "absent"}.get(str(answer.get("state")), str(answer))
    if answer.get("state") == "differs" and answer.get("fingerprint") == {"model": OLD}:
        state = "old"
    counts[f"record {state}"] += 1
    if state not in one.allowed:
        faults.append(f"{one.what}: the record is {state}")
    later = sidecar.name_space(LATER, mount=mount, bump=True)
    if later.get("state") != "created" or later["generation"] <= answer.get("generation", 0):
        faults.append(f"{one.what}: afterwards there is no new generation: {later} after {answer}")
