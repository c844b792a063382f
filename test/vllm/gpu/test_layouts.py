"""What is read off KV tensors: where blocks lie, what a chunk's bytes are, and what cannot be stored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kv_memory import BLOCKS, LAYOUTS, TOKENS, Make, config, flash_attention, heads_outside, layout_of
from kv_memory import blocks_of_all_layers as packed
from kvlane.vllm.chunking import block_facts
from kvlane.vllm.layout import LayoutRefused, read_layout


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_a_block_has_the_bytes_that_its_tensors_have_per_block(make: Make) -> None:
    caches = make("cpu")
    layout = layout_of(caches)
    assert layout.block_bytes == sum(tensor.numel() * tensor.element_size() for tensor in caches.values()) // BLOCKS
    assert all(len(segment.view) == BLOCKS for segment in layout.segments)


def test_pages_are_one_run_where_memory_allows_it() -> None:
    assert len(layout_of(packed("cpu")).segments) == 3
    assert len(layout_of(flash_attention("cpu")).segments) == 6, "keys and values lie apart"
    assert len(layout_of(heads_outside("cpu")).segments) == 4


def test_copies_are_eight_bytes_wide_where_every_page_allows_it() -> None:
    units = {make.__name__: layout_of(make("cpu")).unit for make in LAYOUTS}
    assert units.pop("odd_bytes") == torch.uint8
    assert set(units.values()) == {torch.int64}


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_the_digest_does_not_depend_on_addresses_or_contents(make: Make) -> None:
    assert layout_of(make("cpu")).digest == layout_of(make("cpu")).digest


def test_the_digest_tells_layouts_apart_but_not_numbers_of_blocks() -> None:
    digests = {make.__name__: layout_of(make("cpu")).digest for make in LAYOUTS}
    assert digests.pop("blocks_of_all_layers") == digests["cpu_attention"], "apart in memory, the same bytes in a chunk"
    assert len(set(digests.values())) == len(digests)

    def digest(shape: tuple[int, ...], blocks: int, dtype: torch.dtype = torch.float32) -> str:
        return read_layout({"l0": torch.zeros(shape, dtype=dtype)}, config(["l0"], blocks=blocks)).digest

    assert digest((10, 4, 8), 10) == digest((20, 4, 8), 20)
    assert digest((2, 10, 4, 8), 10) == digest((2, 20, 4, 8), 20)
    assert digest((20, 4, 8), 10) != digest((20, 4, 8), 20), "two rows a block are another layout"
    assert digest((10, 4, 8), 10) != digest((10, 8, 4), 10)
    assert digest((10, 4, 8), 10) != digest((10, 4, 8), 10, torch.int32)


def test_layers_that_share_one_tensor_are_taken_once() -> None:
    one, other = torch.zeros(BLOCKS, 64), torch.zeros(BLOCKS, 64)
    caches = {"l0": one, "l1": other, "l2": one, "l3": other}
    assert read_layout(caches, config(["l0", "l1", "l2", "l3"])).block_bytes == 2 * 256
    assert read_layout(caches, config(["l0", "l1"])).block_bytes == 2 * 256, "also when only their owners are in a group"


def test_groups_that_overlay_one_tensor_are_taken_each_for_its_own_blocks() -> None:
    one = torch.zeros(BLOCKS, 64)
    layout = read_layout({"l0": one, "l1": one}, config(["l0"], ["l1"]))
    assert [segment.group for segment in layout.segments] == [0, 1] and layout.groups == 2


def refusal(caches: dict[str, Any], config: Any) -> str:
    with pytest.raises(LayoutRefused) as refused:
        read_layout(caches, config)
    return str(refused.value)


def test_what_cannot_be_stored_is_refused_in_a_sentence() -> None:
    good = torch.zeros(BLOCKS, 64)
    assert "list of tensors" in refusal({"m": [good, good]}, config(["m"]))
    assert "no KV tensors" in refusal({}, config(["l0"]))
    assert "no KV tensor for layer l1" in refusal({"l0": good}, config(["l0", "l1"]))
    assert "in no KV cache group" in refusal({"l0": good, "x": good.clone()}, config(["l0"]))
    assert "cannot be told" in refusal({"l0": torch.zeros(BLOCKS + 1, 64)}, config(["l0"]))
    assert "cannot be told" in refusal({"l0": torch.zeros(2, 2, 64)}, config(["l0"], blocks=2))
    assert "has no blocks" in refusal({"l0": torch.zeros(BLOCKS)}, config(["l0"]))
    assert "overlaps itself" in refusal({"l0": torch.zeros(1, 64).expand(BLOCKS, 64)}, config(["l0"]))
    assert "100 pieces" in refusal({"l0": torch.zeros(100, BLOCKS, 64).transpose(0, 1)}, config(["l0"]))
    meta = {"l0": good, "l1": torch.zeros(BLOCKS, 64, device="meta")}
    assert "several devices" in refusal(meta, config(["l0", "l1"]))


def test_a_page_that_keeps_something_elsewhere_is_refused() -> None:
    spec = SimpleNamespace(block_size=TOKENS, unpadded_page_size_bytes=64 * 4 + 8)
    said = refusal({"l0": torch.zeros(BLOCKS, 64)}, config(["l0"], spec=spec))
    assert "264 bytes, but its KV tensor shows 256" in said


def test_groups_that_are_not_for_transfer_are_refused() -> None:
    given = config(["l0"])
    given.kv_cache_groups[0].enable_kv_transfer = False
    assert "not meant for transfer" in refusal({"l0": torch.zeros(BLOCKS, 64)}, given)


def test_the_configuration_and_the_tensors_agree_on_a_block() -> None:
    spec = SimpleNamespace(block_size=TOKENS, page_size_bytes=256)
    caches = {"l0": torch.zeros(BLOCKS, 64), "l1": torch.zeros(BLOCKS, 64)}
    assert block_facts(config(["l0", "l1"], spec=spec)) == (TOKENS, read_layout(caches, config(["l0", "l1"])).block_bytes)
