"""A fake sidecar and clients for it, and the one way to wait for something."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvlane import Client
from kvlane.testing import WAIT_S, FakeSidecar

Connect = Callable[..., Client]


@pytest.fixture
def fake() -> Iterator[FakeSidecar]:
    with FakeSidecar() as fake:
        yield fake


@pytest.fixture
def connect(fake: FakeSidecar) -> Iterator[Connect]:
    """Makes clients of the fake that are up; closes them afterwards."""
    clients: list[Client] = []

    def make(**options: Any) -> Client:
        clients.append(Client(fake.options(**options)))
        clients[-1].wait_ready()
        fake.wait_born()
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def kv(connect: Connect) -> Client:
    return connect()


@pytest.fixture(autouse=True)
def no_garbage_between_tests() -> Iterator[None]:
    yield
    gc.collect()


def eventually(condition: Callable[[], object], what: str | Callable[[], str] = "") -> None:
    """Looks again every few milliseconds until it is so; bounded like every wait. `what` may be told by what is seen at the end."""
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit, f"not within {WAIT_S} s: {(what() if callable(what) else what) or condition}"
        time.sleep(0.003)
