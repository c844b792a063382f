"""Late completion of a load that goes round, through a private huge page of the sidecar (--bounce): not even the slot that
was kept from everybody gets the bytes, because the lane copies nothing for a load that was settled."""

from __future__ import annotations

import os
from typing import Any

import pytest
import stall
from late_stage import BLOCKS, CALM_MS, NAMESPACE, PATIENT_MS, TIMEOUT_MS, Stage, in_kernel, root_is_settled
from support import eventually

from kvlane import Client, Options

SLOT_BYTES = 128 << 10
"""Above the smallest block that goes round."""
MARK = b"\xa5" * SLOT_BYTES


def payload(block: int) -> bytes:
    return bytes([0x10 + block]) * SLOT_BYTES


@pytest.mark.parametrize("bounce", ["loads", "none"])
@pytest.mark.parametrize("where", [(engine, place) for engine in ("threads", "aio") for place in ("fuse", "ext4")], ids="-".join)
def test_a_late_load_that_goes_round_never_reaches_its_slot(where: tuple[Any, str], bounce: str) -> None:
    if reason := stall.lab_unavailable():
        pytest.skip(f"SKIPPED: late completion on a mount that hangs: {reason}")
    engine, place = where
    with stall.lab(loop=place == "ext4") as lab:
        asked = Options(
            mounts={"kv0": lab.blk if place == "ext4" else lab.mnt},
            create=True,
            slot_bytes=SLOT_BYTES,
            slots=3 * BLOCKS,
            engine=engine,
            stall_ms=200,
            mute_ms=PATIENT_MS,
            huge_pages="off",
            extra_arguments=["--bounce", bounce],
        )
        with Client(asked) as kv:
            stage = Stage(lab, kv, is_disk=place == "ext4")
            try:
                late_load(stage, bounce)
            finally:
                lab.resume()


def late_load(stage: Stage, bounce: str) -> None:
    kv, keys = stage.kv, stage.keys
    root_is_settled(kv)
    with kv.leasing(BLOCKS, use="store") as slots:
        for block, slot in enumerate(slots):
            slot.view[:] = payload(block)
        stage.calm(lambda: kv.store(keys, slots, namespace=NAMESPACE, bytes=SLOT_BYTES, timeout_ms=CALM_MS))
    all_load(stage)
    assert kv.ready is not None
    arena = os.open(kv.ready["arena"]["path"], os.O_RDWR | os.O_CLOEXEC)
    stage.hang_reads()
    with kv.leasing(BLOCKS) as slots:
        for slot in slots:
            slot.view[:] = MARK
        task = kv.load(keys, slots, namespace=NAMESPACE, bytes=SLOT_BYTES, timeout_ms=TIMEOUT_MS)
        stage.lab.wait_stuck("read")
        kept = {slots[block].index: block for block in in_kernel(kv.wait(task))}
    assert kept and set(stage.quarantined()) <= set(kept)
    stage.lab.resume()
    eventually(lambda: not stage.quarantined() and kv.client_stats()["unanswered"] == 0, "the kernel gives every slot back")
    found = {slot: os.pread(arena, SLOT_BYTES, slot * SLOT_BYTES) for slot in kept}
    os.close(arena)
    late = [slot for slot, block in kept.items() if found[slot] == payload(block)]
    print(f"measured: --bounce {bounce}: bytes came late into {len(late)} of {len(kept)} slots")
    if bounce == "none":
        assert late, "no late bytes: the hazard was not real"
    else:
        assert all(found[slot] == MARK for slot in kept)
    all_load(stage)


def all_load(stage: Stage) -> None:
    kv = stage.kv
    with kv.leasing(BLOCKS) as slots:
        stage.calm(lambda: kv.load(stage.keys, slots, namespace=NAMESPACE, bytes=SLOT_BYTES, timeout_ms=CALM_MS))
        assert all(bytes(slot.view) == payload(block) for block, slot in enumerate(slots))
