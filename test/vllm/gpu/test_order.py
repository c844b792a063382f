"""In which order a device copies, by streams and events; with the double everywhere, with CUDA where there is one."""

from __future__ import annotations

import pytest
import torch
from kv_memory import bits, chunks, cpu_attention, finish, layout_of, make_copier, no_cuda, slots


def test_out_the_engine_waits_for_the_gather_and_nobody_for_the_rest() -> None:
    copier = make_copier("double", layout_of(cpu_attention("cpu")), 2)
    log = copier._device.log
    finish(copier.copy_out(chunks(copier, slots(2, copier.chunk_bytes), [1, 2, 3, 4])))
    assert log == [
        "event engine@0",
        "out waits for engine@0",
        "begin out",
        "event out@0",
        "engine waits for out@0",
        "end out",
        "event out@1",
    ]


def test_in_the_stream_waits_for_the_engine_and_the_engine_for_nothing() -> None:
    copier = make_copier("double", layout_of(cpu_attention("cpu")), 2)
    log = copier._device.log
    finish(copier.copy_in(chunks(copier, slots(5, copier.chunk_bytes), list(range(1, 11)))))
    assert log == ["event engine@0", "in waits for engine@0", "begin in", "end in", "event in@0"]


def test_the_engine_waits_once_for_the_last_window_of_a_large_order() -> None:
    copier = make_copier("double", layout_of(cpu_attention("cpu")), 2)
    finish(copier.copy_out(chunks(copier, slots(5, copier.chunk_bytes), list(range(1, 11)))))
    assert [line for line in copier._device.log if line.startswith("engine waits")] == ["engine waits for out@0"]


@pytest.mark.parametrize("way", ["copy_in", "copy_out"])
def test_a_copy_is_done_when_its_event_is_and_not_before(way: str) -> None:
    copier = make_copier("double", layout_of(cpu_attention("cpu")), 2)
    device = copier._device
    device.complete = False
    transfer = getattr(copier, way)(chunks(copier, slots(1, copier.chunk_bytes), [1, 2]))
    assert not transfer.done and not transfer.done
    device.complete = True
    finish(transfer)
    device.complete = False
    assert transfer.done


def test_a_copy_that_fails_half_way_is_over_when_the_device_is() -> None:
    copier = make_copier("double", layout_of(cpu_attention("cpu")), 2)
    device = copier._device
    device.complete = False
    there = slots(3, copier.chunk_bytes)
    there[2].view.release()
    transfer = copier.copy_out(chunks(copier, there, [1, 2, 3, 4, 5, 6]))
    assert not transfer.done, "the first window may still be on its way"
    device.complete = True
    assert transfer.done and transfer.failed


def test_a_lost_device_ends_every_copy_as_failed() -> None:
    copier = make_copier("double", layout_of(cpu_attention("cpu")), 2)
    transfer = copier.copy_out(chunks(copier, slots(1, copier.chunk_bytes), [1, 2]))
    copier._device.lost = True
    assert transfer.done and "device lost" in transfer.failed


# --- with a device -------------------------------------------------------------------------------------------------------

SLEEP_CYCLES = 200_000_000
"""About a tenth of a second: far longer than launching the copies takes."""


@no_cuda
def test_cuda_what_is_stored_is_what_the_step_wrote_and_not_what_the_next_one_writes() -> None:
    caches = cpu_attention("cuda")
    copier = make_copier("cuda", layout_of(caches), 2)
    there = slots(5, copier.chunk_bytes, pinned=True)
    for tensor in caches.values():
        tensor.fill_(0)
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP_CYCLES)  # a long forward …
    for tensor in caches.values():
        tensor.fill_(1)  # … that writes the blocks at its end
    transfer = copier.copy_out(chunks(copier, there, list(range(1, 11))))
    assert not transfer.done, "nobody waited"
    for tensor in caches.values():
        tensor.fill_(2)  # the next step
    finish(transfer)
    stored = torch.stack([torch.frombuffer(slot.view, dtype=torch.float32) for slot in there])
    assert torch.all(stored == 1)


@no_cuda
def test_cuda_blocks_are_overwritten_only_after_who_had_them_has_read_them() -> None:
    caches = cpu_attention("cuda")
    copier = make_copier("cuda", layout_of(caches), 2)
    there = slots(3, copier.chunk_bytes, pinned=True)
    before = bits(caches["l0"][1:7])
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP_CYCLES)
    read = caches["l0"][1:7].clone()
    finish(copier.copy_in(chunks(copier, there, list(range(1, 7)))))
    assert torch.equal(bits(read), before)
    assert torch.count_nonzero(caches["l0"][1:7].view(torch.uint8)) == 0
