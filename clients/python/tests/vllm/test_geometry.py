"""How tokens, hashes, blocks and chunks fit into each other."""

from __future__ import annotations

from typing import Any

from fakes import BLOCK, CHUNK, FullAttentionSpec, SlidingWindowSpec, cache_config, vllm_config

from kvlane.vllm.config import ConnectorOptions
from kvlane.vllm.geometry import Geometry, read_geometry, with_chunks


def of(config: Any = None, caches: Any = None) -> Geometry:
    options = ConnectorOptions(root="/nowhere", chunk_tokens=CHUNK)
    return read_geometry(options, config or vllm_config(), caches or cache_config())


def test_one_group_hashes_by_the_block() -> None:
    geometry = of()
    assert (geometry.block_tokens, geometry.hash_tokens, geometry.blocks_per_chunk) == (BLOCK, BLOCK, 2)
    assert (geometry.chunk_tokens, geometry.hashes_per_chunk, geometry.trouble) == (CHUNK, 2, "")


def test_with_context_parallelism_a_block_has_more_tokens() -> None:
    geometry = of(vllm_config(decode_context_parallel_size=2))
    assert (geometry.block_tokens, geometry.chunk_tokens, geometry.hashes_per_chunk) == (2 * BLOCK, 2 * CHUNK, 2)


def test_several_groups_may_hash_by_less_than_a_block() -> None:
    caches = cache_config(FullAttentionSpec(), SlidingWindowSpec(16))
    caches.hash_block_size = 2
    geometry = of(caches=caches)
    assert (geometry.hash_tokens, geometry.hashes_per_chunk) == (2, 4)
    assert geometry.windows == (None, 16)


def test_groups_of_different_blocks_do_not_fit() -> None:
    large = FullAttentionSpec()
    large.block_size = 2 * BLOCK
    assert "4, 8 tokens" in of(caches=cache_config(FullAttentionSpec(), large)).trouble


def test_blocks_without_hashes_do_not_fit() -> None:
    hot: Any = FullAttentionSpec()
    hot.prefix_cacheable = False
    assert "by their hashes" in of(caches=cache_config(FullAttentionSpec(), hot)).trouble


def test_hashes_that_do_not_divide_a_chunk_do_not_fit() -> None:
    caches = cache_config(FullAttentionSpec(), FullAttentionSpec())
    caches.hash_block_size = 3
    assert "no multiple of the 3 tokens" in of(caches=caches).trouble


def test_no_groups_is_nothing_to_store() -> None:
    caches = cache_config()
    caches.kv_cache_groups = []
    assert "nothing to store" in of(caches=caches).trouble


def test_a_window_gives_its_leading_blocks_back() -> None:
    geometry = Geometry(BLOCK, BLOCK, 2, (None, 8))
    assert geometry.blocks_gone(0, 1000) == 0
    assert geometry.blocks_gone(1, 8) == 0
    assert geometry.blocks_gone(1, 11) == 1


def test_specs_that_nobody_knows_are_taken_for_the_shortest_window() -> None:
    class ChunkedLocalAttentionSpec:
        block_size = BLOCK

    geometry = of(caches=cache_config(ChunkedLocalAttentionSpec()))
    assert geometry.blocks_gone(0, 4 * BLOCK) == 4


def test_other_chunks_are_checked_again() -> None:
    assert with_chunks(of(), 3).chunk_tokens == 3 * BLOCK
