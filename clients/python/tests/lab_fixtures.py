"""Fixtures for tests that need a mount which hangs on command. Loaded by conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

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
