"""Starting on a mount that hangs, or is not there: the client is up in the usual time, its requests are answered, and it
works by itself when the mount does.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import stall
from leaving_stage import ENGINES
from support import eventually

from kvlane import AsyncClient, Client, Options

SLOT_BYTES = 4096
TIMEOUT_MS = 300
NOISE_S = 2.0
BACK_S = 2.0
"""A second is promised; twice that is asserted."""


def options(root: Path, kind: Any, *, create: bool = True) -> Options:
    return Options(mounts={"kv0": root}, create=create, engine=kind, slot_bytes=SLOT_BYTES, slots=16, stall_ms=200)


def stored(root: Path, kind: str) -> None:
    with Client(options(root, kind)) as kv, kv.leasing(1, use="store") as slots:
        slots[0].view[:] = b"s" * SLOT_BYTES
        assert kv.wait(kv.store(["00"], slots, namespace="start", timeout_ms=10_000)).ok


def loads(kv: Client) -> bool:
    with kv.leasing(1) as slots:
        result = kv.wait(kv.load(["00"], slots, namespace="start", timeout_ms=TIMEOUT_MS))
        return result.ok and bytes(slots[0].view) == b"s" * SLOT_BYTES


@pytest.mark.parametrize("what", ["open", "lookup", "read", "all"])
@pytest.mark.parametrize("kind", ENGINES)
def test_a_client_is_up_though_its_mount_hangs(shared_lab: stall.Lab, fresh_root: Path, kind: str, what: str) -> None:
    stored(fresh_root, kind)
    shared_lab.hang(what)
    began = time.monotonic()
    with Client(options(fresh_root, kind)) as kv:
        up_s = time.monotonic() - began
        print(f"measured: {kind}, {what} hung: up after {up_s * 1000:.0f} ms")
        assert up_s < NOISE_S
        with kv.leasing(1) as slots:
            asked = time.monotonic()
            result = kv.wait(kv.load(["00"], slots, namespace="start", timeout_ms=TIMEOUT_MS))
            assert time.monotonic() - asked < TIMEOUT_MS / 1000 + NOISE_S
        codes = {result.code, *(failure.code for failure in result.failed)} - {None}
        assert not result.ok and codes <= {"DEADLINE_EXCEEDED", "MOUNT_SUSPENDED"}, result
        began = time.monotonic()
        shared_lab.resume()
        eventually(lambda: loads(kv), "it works again by itself")
        back_s = time.monotonic() - began
        print(f"measured: {kind}, {what} hung from the start: back {back_s * 1000:.0f} ms after the resume")
        assert back_s < BACK_S


@pytest.mark.parametrize("kind", ENGINES)
def test_an_event_loop_is_not_held_by_a_start_on_a_mount_that_hangs(
    shared_lab: stall.Lab, fresh_root: Path, kind: str
) -> None:
    stored(fresh_root, kind)
    shared_lab.hang("all")

    async def start() -> None:
        began = time.monotonic()
        async with AsyncClient(options(fresh_root, kind)) as kv:
            assert time.monotonic() - began < NOISE_S
            with kv.leasing(1) as slots:
                assert not (await kv.load(["00"], slots, namespace="start", timeout_ms=TIMEOUT_MS)).ok
            began = time.monotonic()
        print(f"measured: {kind}: closed in {(time.monotonic() - began) * 1000:.0f} ms with the mount hung")
        assert time.monotonic() - began < NOISE_S

    asyncio.run(start())


@pytest.mark.parametrize("kind", ENGINES)
def test_a_directory_without_a_store_is_the_wrong_store_and_stays_empty(tmp_path: Path, kind: str) -> None:
    before = tmp_path.stat()
    with Client(options(tmp_path, kind, create=False)) as kv, kv.leasing(4, use="store") as slots:
        keys = [f"{block:02x}" for block in range(4)]
        results = [
            kv.wait(task)
            for task in (
                kv.store(keys, slots, namespace="start", timeout_ms=TIMEOUT_MS),
                kv.lookup(keys, namespace="start", timeout_ms=TIMEOUT_MS),
                kv.remove(keys, namespace="start", timeout_ms=TIMEOUT_MS),
                kv.namespace("start", {}, timeout_ms=TIMEOUT_MS),
            )
        ]
    assert [result.code for result in results] == ["WRONG_STORE"] * 4
    after = tmp_path.stat()
    assert list(tmp_path.iterdir()) == []
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
