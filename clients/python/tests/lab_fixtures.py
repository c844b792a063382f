"""Fixtures for tests that need a mount which hangs on command. Loaded by conftest.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stall


def _lab(*, loop: bool) -> Iterator[stall.Lab]:
    if reason := stall.lab_unavailable():
        pytest.skip(f"no stall lab: {reason}")
    with stall.lab(loop=loop) as made:
        yield made


@pytest.fixture
def fuse_lab() -> Iterator[stall.Lab]:
    """A FUSE mount: every operation class can be held, thousands at once."""
    yield from _lab(loop=False)


@pytest.fixture
def ext4_lab() -> Iterator[stall.Lab]:
    """An ext4 with direct IO whose device can be held: stuck threads are in D state, as with a dead disk."""
    yield from _lab(loop=True)


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[stall.Lab]:
    """One FUSE mount for all tests of a file, each in a directory of its own (fresh_root)."""
    yield from _lab(loop=False)


@pytest.fixture
def fresh_root(shared_lab: stall.Lab) -> Iterator[Path]:
    """A directory of its own on the mount, made behind the gates."""
    made = shared_lab.back / f"case-{time.monotonic_ns()}"
    made.mkdir()
    yield shared_lab.mnt / made.name
    shared_lab.resume()
