"""Block hashes → chunk keys.

vLLM's block hashes are chained: each names everything before it. So the hash at a chunk's end names the whole prefix, and
one key per chunk is enough. Surprising: a request's list may be cut and grow again with other tokens (streaming input), so
what was derived from it is checked against its last element before it is used again.
"""

from __future__ import annotations

from collections.abc import Sequence

RANK_HEX_CHARS = 4
"""Enough for 65,536 ranks; always there, so that one length of name serves every deployment."""
INT_HASH_BYTES = 16


def rank_hex(key: str, rank: int) -> str:
    """The name of one rank's part of a chunk, as the sidecar gets it."""
    return f"{key}{rank:0{RANK_HEX_CHARS}x}"


def hash_hex(block_hash: object) -> str:
    """vLLM's hashes are bytes; older ones were integers. Anything else has no name and raises TypeError."""
    if isinstance(block_hash, (bytes, bytearray, memoryview)):
        return bytes(block_hash).hex()
    if isinstance(block_hash, int):
        return (block_hash % (1 << (8 * INT_HASH_BYTES))).to_bytes(INT_HASH_BYTES, "big").hex()
    raise TypeError(f"a block hash should be bytes, got {type(block_hash).__name__}")


class ChunkKeys:
    """The chunk keys of one request, extended as its list of hashes grows."""

    def __init__(self, hashes_per_chunk: int) -> None:
        self._per_chunk = hashes_per_chunk
        self._keys: list[str] = []
        self._last: object = None

    def refresh(self, hashes: Sequence[object]) -> int:
        """Follows the list. Returns how many keys are the same as before."""
        kept = len(self._keys)
        if kept and (len(hashes) < kept * self._per_chunk or hashes[kept * self._per_chunk - 1] != self._last):
            old, self._keys = self._keys, []
            self._extend(hashes)
            return next(
                (i for i, (a, b) in enumerate(zip(old, self._keys, strict=False)) if a != b), min(len(old), len(self))
            )
        self._extend(hashes)
        return kept

    def _extend(self, hashes: Sequence[object]) -> None:
        whole = len(hashes) // self._per_chunk
        for chunk in range(len(self._keys), whole):
            self._keys.append(hash_hex(hashes[(chunk + 1) * self._per_chunk - 1]))
        self._last = hashes[whole * self._per_chunk - 1] if whole else None

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, chunk: int) -> str:
        return self._keys[chunk]

    def upto(self, chunks: int) -> list[str]:
        return self._keys[:chunks]
