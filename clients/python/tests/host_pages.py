"""Huge pages for tests that want the host to have some: set as root, put back afterwards; refused is a skip, said aloud."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvlane import _huge_pages

PAGE_BYTES = 2 << 20
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
SHMEM = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")


def available() -> int:
    return next((pool.available for pool in _huge_pages.pools() if pool.page_bytes == PAGE_BYTES), 0)


def _set_aside() -> int:
    """Without those that are over the number and go when their user does: they are not to be kept by putting it back."""
    return int((POOL / "nr_hugepages").read_text()) - int((POOL / "surplus_hugepages").read_text())


@contextmanager
def _set(path: Path, word: str, before: str = "") -> Iterator[None]:
    try:
        match = re.search(r"\[(\w+)\]", path.read_text())
        before = match[1] if match else before
        path.write_text(word)
    except OSError as error:
        pytest.skip(f"SKIPPED: the host's huge pages cannot be set here (root): {error}")
    try:
        yield
    finally:
        path.write_text(before)


@contextmanager
def hugetlb(pages: int) -> Iterator[None]:
    """Exactly so many free pages of 2 MiB. Where the host has more, they are its owner's, and the test is skipped."""
    if not POOL.exists() or available() > 0:
        pytest.skip(f"SKIPPED: wants a hugetlb pool of its own; this host has {available()} free pages, or none at all")
    before = _set_aside()
    over = int((POOL / "surplus_hugepages").read_text())  # of a process that is just leaving: they become ordinary ones
    with _set(POOL / "nr_hugepages", str(before + over + pages), str(before)):
        if available() != pages:
            pytest.skip(f"SKIPPED: of {pages} huge pages this machine's memory had room for {available()}")
        yield


@contextmanager
def shared_thp(word: str) -> Iterator[None]:
    with _set(SHMEM, word):
        yield


@contextmanager
def nothing_huge() -> Iterator[None]:
    if available() > 0:
        pytest.skip(f"SKIPPED: this host has {available()} free huge pages, and the test is about a host without")
    with shared_thp("never"):
        yield


@contextmanager
def host_with(backing: str, size_bytes: int) -> Iterator[None]:
    """A host on which an arena of this size gets just this."""
    if backing == "hugetlb":
        with hugetlb(-(-size_bytes // PAGE_BYTES)):
            yield
    elif backing == "thp":
        if available() > 0:
            pytest.skip(f"SKIPPED: this host has {available()} free huge pages, and they would be taken first")
        with shared_thp("advise"):
            yield
    else:
        with nothing_huge():
            yield
