"""Counts what was asserted, each check a sentence, and never stops at the first that fails.

A story that breaks off (an exception) is one failed check. `planted` turns a story over: it must fail, in a check whose name has
the given words; so the checks themselves are tested.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Iterator


class Checks:
    def __init__(self, *, silent: bool = False) -> None:
        self.passed = 0
        self.failed: list[str] = []
        self.skipped: list[str] = []
        self.silent = silent
        self.facts: dict[str, dict[str, str]] = {}  # place → what was seen, for the table
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        if not self.silent:
            print(f"[{time.monotonic() - self.began:6.1f}] {text}", flush=True)

    def check(self, good: object, sentence: str, seen: object = None) -> bool:
        if good:
            self.passed += 1
            return True
        self.failed.append(sentence)
        told = "" if seen is None else f": {str(seen)[:600]}"
        if not self.silent:
            print(f"FAILED: {sentence}{told}", flush=True)
        return False

    def skip(self, sentence: str) -> None:
        self.skipped.append(sentence)
        print(f"SKIPPED: {sentence}", flush=True)

    def fact(self, place: str, name: str, value: object) -> None:
        self.facts.setdefault(place, {})[name] = str(value)
        self.say(f"{place}: {name}: {value}")

    @contextlib.contextmanager
    def story(self, title: str) -> Iterator[None]:
        began = time.monotonic()
        self.say(f"── {title}")
        try:
            yield
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.check(False, f"{title}: broke off", f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")
            if not self.silent:
                traceback.print_exc(file=sys.stdout)
        self.say(f"   {title}: {time.monotonic() - began:.1f} s")

    @contextlib.contextmanager
    def planted(self, fault: str, words: str) -> Iterator[Checks]:
        """Yields other checks, for a story that must fail in one whose sentence has `words`."""
        inner = Checks(silent=True)
        with self.story(f"planted: {fault}"):
            yield inner
            found = [sentence for sentence in inner.failed if words in sentence]
            self.check(found, f"planted: {fault}: is found by '… {words} …'", inner.failed or "nothing failed")
            if found:
                self.say(f"   found by: {found[0]}")

    def finish(self) -> int:
        for word, sentences in (("failed", self.failed), ("skipped", self.skipped)):
            for sentence in sentences:
                print(f"{word}: {sentence}")
        print(f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped", flush=True)
        return 1 if self.failed else 0


def eventually(what: str, true: object, seconds: float, every: float = 0.005) -> float:
    """Waits for a state, and says how long it took. The bound is generous, and its end an error."""
    assert callable(true)
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(every)
    return time.monotonic() - began
