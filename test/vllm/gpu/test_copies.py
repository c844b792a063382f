"""Chunks out of KV blocks into slots and back into other blocks: every byte, and no byte beside."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
import torch
from kv_memory import (
    BLOCKS,
    KINDS,
    LAYOUTS,
    Make,
    MemorySlot,
    bits,
    block_of,
    chunks,
    config,
    cpu_attention,
    finish,
    layout_of,
    make_copier,
    slots,
)
from kvlane.vllm import copier as copier_module
from kvlane.vllm.layout import read_layout


def on(kind: str) -> str:
    return "cuda" if kind == "cuda" else "cpu"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_chunks_come_back_byte_by_byte_into_other_blocks_and_touch_no_others(make: Make, kind: str) -> None:
    caches = make(on(kind))
    copier = make_copier(kind, layout_of(caches), 2)
    ids = random.Random(7).sample(range(1, BLOCKS), 20)
    source, target = ids[:10], ids[10:]
    there = slots(5, copier.chunk_bytes + 64, pinned=kind == "cuda")
    before = {name: [bits(block_of(tensor, b)) for b in range(BLOCKS)] for name, tensor in caches.items()}

    finish(copier.copy_out(chunks(copier, there, source)))
    finish(copier.copy_in(chunks(copier, there, target)))
    if kind == "cuda":
        torch.cuda.synchronize()
    for name, tensor in caches.items():
        for block in range(BLOCKS):
            came_from = source[target.index(block)] if block in target else block
            assert torch.equal(bits(block_of(tensor, block)), before[name][came_from]), (name, block)


@pytest.mark.parametrize("kind", KINDS)
def test_null_blocks_are_left_alone(kind: str) -> None:
    caches = cpu_attention(on(kind))
    copier = make_copier(kind, layout_of(caches), 4)
    there = slots(2, copier.chunk_bytes, pinned=kind == "cuda")
    finish(copier.copy_out(chunks(copier, there, range(1, 9))))
    before = {name: bits(tensor) for name, tensor in caches.items()}
    finish(copier.copy_in(chunks(copier, there, [0, 0, 11, 12, 0, 0, 0, 0])))
    for name, tensor in caches.items():
        now, then = bits(tensor).view(BLOCKS, -1), before[name].view(BLOCKS, -1)
        assert torch.equal(now[11:13], then[3:5])
        untouched = [b for b in range(BLOCKS) if b not in (11, 12)]
        assert torch.equal(now[untouched], then[untouched])


@pytest.mark.parametrize("kind", KINDS)
def test_groups_have_blocks_of_their_own_even_in_one_tensor(kind: str) -> None:
    one = torch.arange(BLOCKS * 16, dtype=torch.int64, device=on(kind)).view(BLOCKS, 16)
    layout = read_layout({"l0": one, "l1": one}, config(["l0"], ["l1"]))
    copier = make_copier(kind, layout, 2)
    there = slots(1, copier.chunk_bytes, pinned=kind == "cuda")
    before = bits(one).view(BLOCKS, -1)
    finish(copier.copy_out(chunks(copier, there, [1, 2], [3, 4])))
    finish(copier.copy_in(chunks(copier, there, [11, 12], [13, 14])))
    assert torch.equal(bits(one).view(BLOCKS, -1)[11:15], before[1:5])


@pytest.mark.parametrize("kind", KINDS)
def test_memory_made_in_inference_mode_can_be_written(kind: str) -> None:
    with torch.inference_mode():
        caches = cpu_attention(on(kind))
        layout = layout_of(caches)
    copier = make_copier(kind, layout, 2)
    there = slots(1, copier.chunk_bytes, pinned=kind == "cuda")
    finish(copier.copy_out(chunks(copier, there, [1, 2])))
    finish(copier.copy_in(chunks(copier, there, [3, 4])))
    assert torch.equal(bits(caches["l0"][3]), bits(caches["l0"][1]))


def test_a_chunk_is_the_same_bytes_whatever_copies_it() -> None:
    caches = cpu_attention("cpu")
    layout = layout_of(caches)
    seen = []
    for kind in ("cpu", "double"):
        copier = make_copier(kind, layout, 3)
        there = slots(2, copier.chunk_bytes)
        finish(copier.copy_out(chunks(copier, there, [4, 2, 9, 1, 3, 7])))
        seen.append([bytes(slot.view) for slot in there])
    assert seen[0] == seen[1]
    page = caches["l0"][4].numel() * 4
    assert seen[0][0][:page] == bytes(bits(caches["l0"][4]).numpy().tobytes())


def test_large_copies_into_blocks_leave_the_workers_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = cpu_attention("cpu")
    copier = make_copier("cpu", layout_of(caches), 2)
    there = slots(2, copier.chunk_bytes)
    monkeypatch.setattr(copier_module, "INLINE_BYTES_MAX", copier.chunk_bytes)
    copier.look(1, set())
    assert copier.copy_in(chunks(copier, there[:1], [3, 4])).done, "a small one is over at once"
    again = copier.copy_in(chunks(copier, there[:1], [3, 4]))
    finish(again)
    assert isinstance(again, copier_module.Job), "what is small one by one is not small in sum"
    copier.look(2, set())
    large = copier.copy_in(chunks(copier, there, [5, 6, 7, 8]))
    assert isinstance(large, copier_module.Job)
    finish(large)
    assert torch.count_nonzero(caches["l0"][3:9].view(torch.uint8)) == 0
    copier.close()


def test_after_close_nothing_more_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = cpu_attention("cpu")
    copier = make_copier("cpu", layout_of(caches), 2)
    there = slots(1, copier.chunk_bytes)
    monkeypatch.setattr(copier_module, "INLINE_BYTES_MAX", 0)
    copier.look(1, set())
    finish(copier.copy_in(chunks(copier, there, [3, 4])))
    began = time.monotonic()
    copier.close()
    assert time.monotonic() - began < copier_module.CLOSE_WAIT_S + 0.5
    before = bits(caches["l0"])
    late = copier.copy_in(chunks(copier, there, [5, 6]))
    assert not late.done and torch.equal(bits(caches["l0"]), before)


@pytest.mark.parametrize("kind", ["cpu", "double"])
def test_what_goes_wrong_is_told_in_the_transfer(kind: str) -> None:
    class Lost:
        life = 1

        @property
        def view(self) -> Any:
            raise RuntimeError("the slot is the kernel's")

    copier = make_copier(kind, layout_of(cpu_attention("cpu")), 2)
    for copy in (copier.copy_in, copier.copy_out):
        transfer = copy(chunks(copier, [Lost()], [1, 2]))
        assert transfer.done and "the slot is the kernel's" in transfer.failed


def test_no_view_of_a_slot_outlives_its_copy() -> None:
    for kind in ("cpu", "double"):
        copier = make_copier(kind, layout_of(cpu_attention("cpu")), 2)
        memory = bytearray(copier.chunk_bytes)
        slot = [MemorySlot(memoryview(memory))]
        finish(copier.copy_out(chunks(copier, slot, [1, 2])))
        finish(copier.copy_in(chunks(copier, slot, [3, 4])))
        slot[0].view.release()
        memory.clear()  # raises BufferError if anybody still looks at it
