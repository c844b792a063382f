"""How tokens, hashes, blocks and chunks fit into each other, read off vLLM's configuration by attribute.

A block here is the scheduler's: with decode context parallelism one block id stands for so many ranks times its tokens.
Surprising: it may be that nothing fits; then `trouble` says why in a sentence, and nothing is claimed or stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .chunking import block_facts
from .config import ConnectorOptions


@dataclass(frozen=True)
class Geometry:
    block_tokens: int
    hash_tokens: int
    blocks_per_chunk: int
    windows: tuple[int | None, ...] = (None,)
    """Per KV group: tokens of its sliding window; None: it keeps everything."""
    world_size: int = 1
    trouble: str = ""

    @property
    def chunk_tokens(self) -> int:
        return self.block_tokens * self.blocks_per_chunk

    @property
    def hashes_per_chunk(self) -> int:
        return max(1, self.chunk_tokens // self.hash_tokens)

    @property
    def groups(self) -> int:
        return len(self.windows)

    def blocks_gone(self, group: int, computed: int) -> int:
        """Leading blocks of a request that a sliding window may have given back, `computed` tokens in."""
        window = self.windows[group] if group < len(self.windows) else 1
        return 0 if window is None else max(0, computed - window + 1) // self.block_tokens


def read_geometry(options: ConnectorOptions, vllm_config: Any, kv_cache_config: Any) -> Geometry:
    cache, parallel = vllm_config.cache_config, vllm_config.parallel_config
    world_size = int(parallel.world_size)
    try:
        spec_tokens, block_bytes = block_facts(kv_cache_config)
    except (ValueError, AttributeError, TypeError) as error:
        return Geometry(1, 1, 1, world_size=world_size, trouble=str(error))
    specs = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
    dcp = int(getattr(parallel, "decode_context_parallel_size", 1) or 1)
    block_tokens = spec_tokens * max(_ways(spec, dcp) for spec in specs)
    # Newer ones say it; before, and with one group, a hash is a block.
    said = getattr(kv_cache_config, "hash_block_size", None) or getattr(cache, "prefix_match_unit", None)
    hash_tokens = int(said) if said and len(specs) > 1 else block_tokens
    per_chunk = options.blocks_per_chunk(spec_tokens, block_bytes)
    geometry = Geometry(block_tokens, hash_tokens, per_chunk, tuple(map(_window, specs)), world_size)
    if not all(getattr(spec, "prefix_cacheable", True) for spec in specs):
        why = "vLLM does not look for the blocks of some KV cache group by their hashes, and so nothing can be stored under them"
        return replace(geometry, trouble=why)
    if len({_ways(spec, dcp) for spec in specs}) > 1:
        why = "decode context parallelism divides some KV cache groups and others not; kvlane needs them to be alike"
        return replace(geometry, trouble=why)
    return with_chunks(geometry, per_chunk)


def with_chunks(geometry: Geometry, blocks_per_chunk: int) -> Geometry:
    """The same with other chunks: the workers' word counts, since they have the memory."""
    chunk_tokens, hash_tokens = geometry.block_tokens * blocks_per_chunk, geometry.hash_tokens
    fits = chunk_tokens % hash_tokens == 0
    trouble = "" if fits else f"a chunk of {chunk_tokens} tokens is no multiple of the {hash_tokens} tokens of a block hash"
    return replace(geometry, blocks_per_chunk=blocks_per_chunk, trouble=trouble)


def _ways(spec: Any, dcp: int) -> int:
    return dcp if getattr(spec, "dcp_sharded", True) else 1


def _window(spec: Any) -> int | None:
    """Only specs that are managed as windows give blocks back; full attention may carry the number for the kernel."""
    names = {each.__name__ for each in type(spec).__mro__}
    if "FullAttentionSpec" in names:
        return None
    if "SlidingWindowSpec" in names:
        return int(getattr(spec, "sliding_window", None) or 1)
    if "UniformTypeKVCacheSpecs" in names:
        windows = [_window(each) for each in getattr(spec, "kv_cache_specs", {}).values()]
        return min((window for window in windows if window is not None), default=None)
    return None if "AttentionSpec" in names and names.isdisjoint({"ChunkedLocalAttentionSpec"}) else 1
