"""With a GPU: a real client's arena, pinned, and copies at a good part of what pinned memory allows."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from kv_memory import chunks, config, finish, no_cuda, slots
from kvlane import Client
from kvlane.testing import FakeSidecar
from kvlane.vllm.copier import open_memory
from support import eventually

pytestmark = no_cuda

LAYERS, BLOCKS, PAGE = 32, 1024, 64 << 10
PER_CHUNK = 4
GOOD_PART = 0.3
"""Of the bandwidth of one large copy. Generous: pages are gathered on the way, and machines are shared."""


def caches() -> dict[str, torch.Tensor]:
    return {f"l{i}": torch.randint(0, 100, (BLOCKS, PAGE // 4), dtype=torch.int32, device="cuda") for i in range(LAYERS)}


def gigabytes_per_s(size: int, work: Any) -> float:
    best = 1e9
    for _ in range(4):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return size / best / 1e9


def test_bandwidth_is_a_good_part_of_what_pinned_memory_allows(capsys: pytest.CaptureFixture[str]) -> None:
    copier, _ = open_memory(caches(), config([f"l{i}" for i in range(LAYERS)], blocks=BLOCKS), PER_CHUNK)
    there = slots(24, copier.chunk_bytes, pinned=True)
    size = 24 * copier.chunk_bytes
    host, device = torch.empty(size, dtype=torch.uint8).pin_memory(), torch.empty(size, dtype=torch.uint8, device="cuda")
    ids = torch.randperm(BLOCKS - 1)[: 24 * PER_CHUNK].add(1).tolist()
    order = chunks(copier, there, ids)  # type: ignore[arg-type]

    def whole(to: torch.Tensor, source: torch.Tensor) -> None:
        to.copy_(source, non_blocking=True)
        torch.cuda.synchronize()

    rates = {
        "host to device": (gigabytes_per_s(size, lambda: whole(device, host)), gigabytes_per_s(size, lambda: finish(copier.copy_in(order)))),
        "device to host": (gigabytes_per_s(size, lambda: whole(host, device)), gigabytes_per_s(size, lambda: finish(copier.copy_out(order)))),
    }  # fmt: skip
    with capsys.disabled():
        for way, (limit, ours) in rates.items():
            print(f"\n{torch.cuda.get_device_name()}, {way}: {ours:.1f} of {limit:.1f} GB/s ({ours / limit:.0%})", end="")
    assert all(ours > GOOD_PART * limit for limit, ours in rates.values()), rates


def test_the_arena_of_a_client_is_pinned_and_again_after_a_restart() -> None:
    with FakeSidecar() as fake:
        copier, _ = open_memory(caches(), config([f"l{i}" for i in range(LAYERS)], blocks=BLOCKS), PER_CHUNK)
        with Client(fake.options(slot_bytes=copier.chunk_bytes, slots=24, backoff_first_ms=1)) as client:
            fake.wait_born()
            copier.attach(client)
            assert not copier.ready(client.life)

            def pinned() -> bool:
                copier.look(client.life, set())
                return copier.ready(client.life)

            eventually(pinned)
            copy_both_ways(client, copier)
            fake.order(exit=3)
            fake.wait_born()
            client.wait_ready()
            assert not copier.ready(client.life)
            eventually(pinned)
            copy_both_ways(client, copier)
            eventually(lambda: client.client_stats()["arenas_abandoned"] == 0, "the former arena is given back")
            copier.close()


def copy_both_ways(client: Client, copier: Any) -> None:
    held = client.lease(8)
    assert torch.frombuffer(held[0].view, dtype=torch.uint8).is_pinned(), "CUDA knows this memory"
    before = [copier.layout.segments[3].view[b].clone() for b in range(1, 33)]
    finish(copier.copy_out(chunks(copier, held, list(range(1, 33)))))
    finish(copier.copy_in(chunks(copier, held, list(range(101, 133)))))
    for number, page in enumerate(before):
        assert torch.equal(copier.layout.segments[3].view[101 + number], page)
    for slot in held:
        slot.release()
