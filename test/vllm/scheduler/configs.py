"""vLLM's configuration of a tiny model, and the KV cache that goes with it, without an engine.

Surprising: with two ranks the configuration says tensor parallel size 2 only on copies made afterwards, because vLLM
checks it against what the machine has.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model import CONTENT, HEADS

ROOT = Path(__file__).resolve().parents[3]


def model_directory() -> str:
    return os.environ.get("KVLANE_VLLM_MODEL") or str(ROOT / ".venv-vllm" / "model")


@dataclass(frozen=True)
class Setup:
    """All that a test may want otherwise."""

    root: str
    options: dict[str, Any] = field(default_factory=dict)
    """Into kv_connector_extra_config, over the defaults of `extra_config`."""
    scheduling: str = "sync"
    """sync: a step is over before the next is planned. async: two in flight, the worker one behind."""
    start_load: str = "after"
    """When start_load_kv is called: after the forward (since 0.29) or before it."""
    policy: str | None = "recompute"
    """None: vLLM's own default."""
    role: str = "kv_both"
    world: int = 1
    layers: int = 2
    block_size: int = 16
    blocks: int = 128
    batched_tokens: int = 1024
    max_seqs: int = 16
    max_model_len: int = 1024
    prefix_caching: bool = True
    hash_algo: str = "sha256_cbor"
    connector: str = "KvlaneConnector"
    module: str = "kvlane.vllm"

    def extra_config(self) -> dict[str, Any]:
        if self.module != "kvlane.vllm":
            return dict(self.options)
        small = {"arena_mib": 4, "chunk_tokens": 2 * self.block_size}
        patient = {"timeout_ms": 3000, "lookup_budget_ms": 2000}  # the defaults are for machines that are not busy
        return {"root": self.root, **small, **patient, **self.options}


def vllm_config(setup: Setup) -> Any:
    from vllm.config import KVTransferConfig
    from vllm.engine.arg_utils import EngineArgs

    policy = {} if setup.policy is None else {"kv_load_failure_policy": setup.policy}
    config = EngineArgs(
        model=model_directory(),
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        block_size=setup.block_size,
        max_model_len=setup.max_model_len,
        max_num_batched_tokens=setup.batched_tokens,
        max_num_seqs=setup.max_seqs,
        enable_prefix_caching=setup.prefix_caching,
        prefix_caching_hash_algo=setup.hash_algo,
        kv_transfer_config=KVTransferConfig(
            kv_connector=setup.connector,
            kv_connector_module_path=setup.module,
            kv_role=setup.role,
            kv_connector_extra_config=setup.extra_config(),
            **policy,
        ),
    ).create_engine_config()
    config.scheduler_config.async_scheduling = setup.scheduling == "async"
    config.cache_config.num_gpu_blocks = setup.blocks
    config.cache_config.kv_cache_layout = "LBHNC"
    return for_rank(config, 0, setup.world)


def for_rank(config: Any, rank: int, world: int) -> Any:
    """What the worker of this rank is given."""
    mine = copy.copy(config)
    mine.parallel_config = copy.copy(config.parallel_config)
    mine.parallel_config.rank = rank
    mine.parallel_config.world_size = world
    mine.parallel_config.tensor_parallel_size = world
    return mine


def kv_cache_config(setup: Setup) -> Any:
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, KVCacheTensor

    spec = FullAttentionSpec(block_size=setup.block_size, num_kv_heads=HEADS, head_size=CONTENT // 2, dtype=torch.float32)
    names = [f"model.layers.{layer}.self_attn.attn" for layer in range(setup.layers)]
    page = spec.page_size_bytes
    size = page * setup.blocks
    if "layers" in KVCacheTensor.__dataclass_fields__:
        tensors = [KVCacheTensor(size=size * setup.layers, layers=names, layer_stride=size, block_stride=page)]
    else:  # before the autumn of 2026 each layer had its own
        tensors = [KVCacheTensor(size=size, shared_by=[name]) for name in names]
    newer = {"kv_cache_layout": "LBHNC", "hash_block_size": setup.block_size, "cache_hit_alignment_tokens": setup.block_size}
    return KVCacheConfig(
        num_blocks=setup.blocks,
        kv_cache_tensors=tensors,
        kv_cache_groups=[KVCacheGroupSpec(names, spec)],
        **{name: value for name, value in newer.items() if name in KVCacheConfig.__dataclass_fields__},
    )
