"""Huge pages for tests that want the host to have some: set as root by test/support/host_pages.sh, which puts them back even
when the test is killed. Where that is refused the test is skipped, and says why."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvlane import _huge_pages

PAGE_BYTES = 2 << 20
SCRIPT = Path(__file__).resolve().parents[3] / "test" / "support" / "host_pages.sh"
PUT_BACK_S = 60


def available() -> int:
    return next((pool.available for pool in _huge_pages.pools() if pool.page_bytes == PAGE_BYTES), 0)


@contextmanager
def host(pool: int | None = None, shmem: str | None = None) -> Iterator[None]:
    """Exactly so many free pages of 2 MiB, and this policy for transparent ones of shared memory; None: as it is."""
    settings = {"pool": pool, "shmem": shmem}
    words = [f"{name}={value}" for name, value in settings.items() if value is not None]
    with subprocess.Popen(
        ["bash", SCRIPT, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:  # fmt: skip
        assert keeper.stdin is not None and keeper.stdout is not None
        try:
            answer = keeper.stdout.readline().strip()
            if answer != "ready":
                pytest.skip(f"SKIPPED: {answer or 'test/support/host_pages.sh says nothing'}")
            yield
        finally:
            keeper.stdin.close()
            keeper.wait(PUT_BACK_S)


@contextmanager
def host_with(backing: str, size_bytes: int) -> Iterator[None]:
    """A host on which an arena of this size gets just this."""
    if backing == "hugetlb":
        with host(pool=-(-size_bytes // PAGE_BYTES)):
            yield
    elif backing == "thp":
        with host(pool=0, shmem="advise"):
            yield
    else:
        with host(pool=0, shmem="never"):
            yield
