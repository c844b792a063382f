"""How large a KV block is, read off vLLM's KVCacheConfig by attribute. The scheduler and every worker must come to the same
number, since it decides how many blocks make a chunk."""

from __future__ import annotations

from typing import Any


def block_facts(kv_cache_config: Any) -> tuple[int, int]:
    """(tokens, bytes) of one block id, over all layers of one rank. Bytes 0: not to be known from the configuration.

    Raises ValueError where groups have blocks of different sizes: a chunk would be no whole number of blocks in each.
    """
    groups = list(getattr(kv_cache_config, "kv_cache_groups", None) or ())
    if not groups:
        raise ValueError("the KV cache configuration names no KV cache groups, so there is nothing to store")
    tokens = {int(group.kv_cache_spec.block_size) for group in groups}
    if len(tokens) != 1:
        raise ValueError(
            f"the KV cache groups have blocks of {', '.join(map(str, sorted(tokens)))} tokens; kvlane stores models whose "
            "groups all have the same block size"
        )
    total = 0
    for group in groups:
        page = getattr(group.kv_cache_spec, "page_size_bytes", 0)
        many = (
            1 if hasattr(group.kv_cache_spec, "kv_cache_specs") else len(group.layer_names)
        )  # a uniform spec has summed up
        total += int(page) * many
    return tokens.pop(), total
