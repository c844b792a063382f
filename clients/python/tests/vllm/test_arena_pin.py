"""Pinning an arena: off the worker's thread, again after a restart, and never in the way of giving memory back."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Set

import pytest
from support import Connect, eventually

from kvlane import Client
from kvlane.testing import WAIT_S, FakeSidecar
from kvlane.vllm import arena_pin
from kvlane.vllm.arena_pin import ArenaPin


class Register:
    """Registers when it is let, and remembers what is registered."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.failing = False
        self.held: dict[int, int] = {}
        self.calls: list[str] = []
        self.asked = threading.Event()

    def register(self, address: int, size_bytes: int) -> None:
        self.asked.set()
        assert self.gate.wait(WAIT_S)
        if self.failing:
            raise RuntimeError("cudaHostRegister failed with CUDA error 2")
        self.held[address] = size_bytes
        self.calls.append("register")

    def unregister(self, address: int) -> None:
        del self.held[address]
        self.calls.append("unregister")

    def settle(self) -> None:
        self.calls.append("settle")


@pytest.fixture
def register() -> Register:
    return Register()


@pytest.fixture
def client(fake: FakeSidecar, connect: Connect) -> Client:
    return connect(backoff_first_ms=1)


@pytest.fixture
def pin(client: Client, register: Register) -> Iterator[ArenaPin]:
    pin = ArenaPin(client, register)
    yield pin
    register.gate.set()
    pin.close()
    assert pin.closed.wait(WAIT_S)


def ready(pin: ArenaPin, client: Client, in_use: Set[int] = frozenset()) -> bool:
    pin.look(client.life, in_use)
    return pin.ready(client.life)


def test_looking_does_not_wait_for_the_device(pin: ArenaPin, client: Client, register: Register) -> None:
    register.gate.clear()
    assert not ready(pin, client)
    assert register.asked.wait(WAIT_S)
    assert not ready(pin, client)
    register.gate.set()
    eventually(lambda: ready(pin, client))
    assert sum(register.held.values()) == 16 * 4096


def test_large_arenas_are_registered_in_pieces_of_whole_slots(
    pin: ArenaPin, client: Client, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena_pin, "PIECE_BYTES", 3 * 4096 + 5)
    other = ArenaPin(client, register)
    eventually(lambda: ready(other, client))
    assert sorted(register.held.values()) == [4096, *[3 * 4096] * 5]
    other.close()
    assert other.closed.wait(WAIT_S) and register.held == {}


def test_after_a_restart_the_new_arena_is_pinned_and_the_old_one_let_go(
    pin: ArenaPin, client: Client, fake: FakeSidecar, register: Register
) -> None:
    eventually(lambda: ready(pin, client))
    held = client.lease(1)
    fake.order(exit=3)
    fake.wait_born()
    client.wait_ready()
    assert client.life == 2
    pin.look(2, {1})
    assert pin.ready(1), "a slot of it is still held, and may be copied from"
    eventually(lambda: ready(pin, client, {1}))
    assert register.calls == ["register", "register"]
    held[0].release()
    pin.look(2, set())
    assert not pin.ready(1)
    eventually(lambda: client.client_stats()["arenas_abandoned"] == 0, "its memory goes back to the kernel")
    assert register.calls == ["register", "register", "settle", "unregister"]
    assert pin.ready(2)


def test_an_arena_that_cannot_be_pinned_is_tried_again_later(
    pin: ArenaPin, client: Client, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena_pin, "RETRY_LOOKS", 3)
    register.failing = True
    assert not ready(pin, client)
    assert register.asked.wait(WAIT_S)
    register.failing = False
    eventually(lambda: ready(pin, client))


def test_without_a_sidecar_there_is_nothing_to_pin(fake: FakeSidecar, register: Register) -> None:
    client = Client(fake.options())
    client.close()
    pin = ArenaPin(client, register)
    assert not ready(pin, client) and register.calls == []
    pin.close()
    assert pin.closed.wait(WAIT_S)
