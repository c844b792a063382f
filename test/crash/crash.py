"""`npm run crash`: SIGKILL at every step of a store, and the power cut at every step; the last line is the sum.

    npm run crash                  the short form, which npm test runs: a share of all cuts, drawn by the seed
    npm run crash -- --full        every step, both engines, with and without --fsync; every subset of what was not forced out
    npm run crash -- --full --minutes M     as much of that as goes into M minutes, in an order that the seed draws
    npm run crash -- --seed S      another share

After a kill each block must be whole, as it was, or not there: never damaged, since nothing that was written is lost. After a power cut it may
also be CORRUPT; what was stored with --fsync and answered ok must be whole, and one that it replaces is the old or the new one at every moment.
Never may anything else be loaded; and whatever was left must not be in the way of the next store. Faults are planted in between
(seam.c), and each must be found.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cuts import cut_all
from kills import kill_all
from stories import SCENARIOS


@dataclass
class Sum:
    passed: int = 0
    failed: int = 0

    def tell(self, good: bool, what: str, note: str, started: float) -> None:
        self.passed, self.failed = self.passed + good, self.failed + (not good)
        print(f"{'ok' if good else 'FAILED'}: {what}: {note} ({time.monotonic() - started:.1f} s)", flush=True)


def brief(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n)


def remove_what_was_left(place: Path) -> None:
    """By a run that was killed: it holds no lock any more."""
    for folder in place.glob("kvlane-crash-*"):
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def leave(number: int, _: object) -> None:
    sys.exit(128 + number)  # so that what is below is cleared away


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float)
    given = parser.parse_args()
    half_s = 30 * given.minutes if given.minutes is not None else float("inf")
    chance = random.Random(given.seed)
    every = [(s, e, d) for s in SCENARIOS for e in ("threads", "aio") for d in (False, True) if not (d and s.record)]
    total = Sum()
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, leave)
    disk = Path(os.environ.get("KVLANE_TEST_DIR", "/var/tmp"))
    remove_what_was_left(disk)
    # Kills on a disk file system: they lose nothing that was written, on whatever it is, and not each tmpfs takes O_DIRECT. Power cuts in
    # memory (run.sh): thousands of disks.
    memory = os.environ["KVLANE_CRASH_MEMORY"]
    with tempfile.TemporaryDirectory(prefix="kvlane-crash-", dir=disk) as name:
        fcntl.flock(os.open(name, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX)

        def part(what: str, run: Callable[[Path], tuple[Counter[str], list[str]]], wanted: str = "", place: str = name) -> None:
            started = time.monotonic()
            folder = Path(place) / str(total.passed + total.failed)
            folder.mkdir()
            try:
                counts, faults = run(folder)
                if wanted:
                    hits = [fault for fault in faults if wanted in fault]
                    total.tell(bool(hits), what, hits[0] if hits else f"NOT FOUND in {brief(counts)}; {faults[:2]}", started)
                else:
                    total.tell(not faults and counts["kills"] + counts["disks"] > 0, what, brief(counts), started)
                    for fault in faults[:10]:
                        print(f"    {fault}", flush=True)
            except Exception as error:
                total.tell(False, what, f"{type(error).__name__}: {error}", started)
            shutil.rmtree(folder, ignore_errors=True)

        some = every if given.full else chance.sample(every, 5)
        part(
            "SIGKILL at each step: every block is whole, as it was or not there",
            lambda f: kill_all(f, chance, None if given.full else 4, some, end=time.monotonic() + half_s),
        )
        some_cuts = (
            every
            if given.full
            else [(s, chance.choice(["threads", "aio"]), d) for s in SCENARIOS for d in (False, True) if not (d and s.record)]
        )
        part(
            "power cut at each step: every block is whole, absent or CORRUPT, and whole where --fsync said ok",
            lambda f: cut_all(f, chance, None if given.full else 15, some_cuts, seed=given.seed, end=time.monotonic() + half_s),
            place=memory,
        )
        plain, replaced = SCENARIOS[1], SCENARIOS[2]
        part(
            "found: a name that changes before its bytes are written",
            lambda f: kill_all(f, chance, None, [(plain, "threads", False)], "late-write", "rename"),
            "CORRUPT",
        )
        part(
            "found: temporaries that all stores share, without O_EXCL",
            lambda f: kill_all(f, chance, None, [(plain, "threads", False)], "shared-temporary", "rename"),
            "cannot be stored",
        )
        part(
            "found: payloads that nobody checks",
            lambda f: cut_all(f, random.Random(1), 30, [(replaced, "threads", False)], more=("--test-unchecked",)),
            "WRONG BYTES",
            memory,
        )
        part(
            "found: --fsync that forces nothing out",
            lambda f: cut_all(f, random.Random(1), 60, [(plain, "threads", True)], plant="no-fsync"),
            "is CORRUPT",
            memory,
        )
        part(
            "found: --fsync that forces out the file and not its name",
            lambda f: cut_all(f, random.Random(1), 60, [(plain, "threads", True)], plant="no-directory-fsync"),
            "is absent",
            memory,
        )
    print(f"{total.passed} passed, {total.failed} failed, 0 skipped")
    return 0 if total.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
