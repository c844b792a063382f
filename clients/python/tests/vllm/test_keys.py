"""Block hashes → chunk keys."""

from __future__ import annotations

import pytest
from fakes import PER_CHUNK, block_hashes, keys

from kvlane.vllm.keys import ChunkKeys, hash_hex, rank_hex


def test_a_chunk_is_named_by_the_hash_at_its_end() -> None:
    chunks = ChunkKeys(PER_CHUNK)
    chunks.refresh(block_hashes("abc"))
    assert chunks.upto(3) == keys("abc")


def test_a_chunk_that_is_not_whole_has_no_key() -> None:
    chunks = ChunkKeys(PER_CHUNK)
    chunks.refresh(block_hashes("abc")[:-1])
    assert len(chunks) == 2


def test_keys_grow_with_the_hashes() -> None:
    chunks = ChunkKeys(PER_CHUNK)
    chunks.refresh(block_hashes("a"))
    assert chunks.refresh(block_hashes("abc")) == 1
    assert chunks.upto(9) == keys("abc")


def test_a_list_that_was_cut_and_went_on_otherwise_has_other_keys() -> None:
    chunks = ChunkKeys(PER_CHUNK)
    chunks.refresh(block_hashes("abcd"))
    assert chunks.refresh(block_hashes("abxyz")) == 2
    assert chunks.upto(9) == keys("abxyz")


def test_a_list_that_was_cut_has_fewer_keys() -> None:
    chunks = ChunkKeys(PER_CHUNK)
    chunks.refresh(block_hashes("abc"))
    assert chunks.refresh(block_hashes("a")) == 1
    assert len(chunks) == 1
    chunks.refresh([])
    assert len(chunks) == 0


def test_ranks_have_names_of_their_own_of_one_length() -> None:
    assert rank_hex("ab", 0) == "ab0000"
    assert rank_hex("ab", 17) == "ab0011"


def test_old_integer_hashes_have_a_name_too() -> None:
    assert len(hash_hex(-1)) == len(hash_hex(1)) == 32
    assert hash_hex(-1) != hash_hex(1)


def test_what_is_no_hash_is_refused() -> None:
    with pytest.raises(TypeError, match="should be bytes, got str"):
        hash_hex("ab")
