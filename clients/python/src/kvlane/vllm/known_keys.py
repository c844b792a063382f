"""What the scheduler remembers of storage: which chunks are there, which are not, which are bad.

Positive until a failure says otherwise or until the memory is full; negative for a second, since another engine may store
the chunk meanwhile, and no longer than until we order its store ourselves; bad for ten, since a damaged chunk of one rank is
still found by its name on rank 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

PRESENT_MAX = 131_072
"""Keys. At 256 tokens a chunk 33 million tokens; about 25 MB. The longest unused go first."""
ABSENT_MAX = 65_536
"""Keys; the oldest go first."""
BAD_MAX = 16_384
"""Keys; the oldest go first."""
ABSENT_US = 1_000_000
BAD_US = 10_000_000


class KnownKeys:
    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._present: dict[str, None] = {}  # in order of use
        self._absent: dict[str, int] = {}  # key → until
        self._bad: dict[str, int] = {}

    def clear(self) -> None:
        self._present.clear()
        self._absent.clear()
        self._bad.clear()

    def add(self, key: str) -> None:
        """It is on storage, on all ranks."""
        self._absent.pop(key, None)
        self._present.pop(key, None)
        self._present[key] = None
        _bound(self._present, PRESENT_MAX)

    def add_stored(self, key: str) -> None:
        """It has just been written: also the end of its being bad."""
        self._bad.pop(key, None)
        self.add(key)

    def expect(self, key: str) -> None:
        """A store of it has been ordered: whoever asks from now on must ask storage."""
        self._absent.pop(key, None)

    def add_absent(self, key: str) -> None:
        self._present.pop(key, None)
        self._absent.pop(key, None)
        self._absent[key] = self._now_us() + ABSENT_US
        _bound(self._absent, ABSENT_MAX)

    def forget(self, keys: Iterable[str]) -> None:
        """Whether they are there is not known any more."""
        for key in keys:
            self._present.pop(key, None)

    def add_bad(self, key: str) -> None:
        """It was found but could not be loaded: for some time not asked for, and stored again when it is computed."""
        self._present.pop(key, None)
        self._bad.pop(key, None)
        self._bad[key] = self._now_us() + BAD_US
        _bound(self._bad, BAD_MAX)

    def is_present(self, key: str) -> bool:
        return key in self._present and not self.is_bad(key)

    def is_absent(self, key: str) -> bool:
        return self._fresh(self._absent, key) or self.is_bad(key)

    def is_bad(self, key: str) -> bool:
        return bool(self._bad) and self._fresh(self._bad, key)

    def leading(self, keys: Sequence[str]) -> int:
        """How many from the front are known to be there. Using them keeps them in memory."""
        for count, key in enumerate(keys):
            if not self.is_present(key):
                return count
            del self._present[key]
            self._present[key] = None
        return len(keys)

    def _fresh(self, until: dict[str, int], key: str) -> bool:
        limit_us = until.get(key)
        if limit_us is None:
            return False
        if self._now_us() >= limit_us:
            del until[key]
            return False
        return True


def _bound(table: dict[str, None] | dict[str, int], most: int) -> None:
    while len(table) > most:
        del table[next(iter(table))]
