"""kvlane's messages in the types that vLLM wants to carry them in, and a look at what this vLLM has.

Everything is found by attribute or signature. A class that an older vLLM has not is replaced by `object`: the carrier
then exists, and is never sent.
"""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from typing import Any

import vllm
from vllm.distributed.kv_transfer.kv_connector.v1 import base as vllm_base
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata

from .features import Detected
from .messages import Orders, WorkerFacts, WorkerReport

TransferResults: Any = getattr(vllm_base, "KVConnectorTransferResults", None)
SupportsHMA: Any = getattr(vllm_base, "SupportsHMA", None)
_WorkerMetadata: Any = getattr(vllm_base, "KVConnectorWorkerMetadata", None)
_HandshakeMetadata: Any = getattr(vllm_base, "KVConnectorHandshakeMetadata", None)

WORKER_META = _WorkerMetadata is not None and hasattr(KVConnectorBase_V1, "build_connector_worker_meta")
HANDSHAKE = _HandshakeMetadata is not None and hasattr(KVConnectorBase_V1, "get_handshake_metadata")
HMA = SupportsHMA is not None and TransferResults is not None
"""Offered only where a failed load can be told on a model with several groups."""


@dataclass
class KvlaneMetadata(KVConnectorMetadata):  # type: ignore[misc]
    """Scheduler → workers, each step."""

    orders: Orders


@dataclass
class KvlaneWorkerMeta(_WorkerMetadata if WORKER_META else object):  # type: ignore[misc]
    """Workers → scheduler, each step."""

    report: WorkerReport

    def aggregate(self, other: Any) -> KvlaneWorkerMeta:
        self.report.merge(other.report)
        return self


@dataclass
class KvlaneHandshake(_HandshakeMetadata if HANDSHAKE else object):  # type: ignore[misc]
    """Worker → scheduler, once."""

    facts: WorkerFacts | None
    refused: str | None = None
    """Why this worker cannot take part."""


def detect(vllm_config: Any, kv_cache_config: Any) -> Detected:
    """What this vLLM and its configuration are. Looks at nothing but objects in memory."""
    transfer = vllm_config.kv_transfer_config
    policy = getattr(transfer, "kv_load_failure_policy", None)
    groups = getattr(kv_cache_config, "kv_cache_groups", None)
    return Detected(
        worker_meta=WORKER_META,
        failed_recving=TransferResults is not None and "failed_recving" in inspect.signature(TransferResults).parameters,
        load_errors=hasattr(KVConnectorBase_V1, "get_block_ids_with_load_errors"),
        hma=HMA,
        handshake=HANDSHAKE,
        policy=policy if policy in ("recompute", "fail") else None,
        groups=0 if groups is None else len(groups),
        holds_aborted=_holds_aborted(),
        world_size=vllm_config.parallel_config.world_size,
        role=transfer.kv_role or "kv_both",
        version=str(getattr(vllm, "__version__", "unknown")),
    )


def _holds_aborted() -> bool:
    """By the argument that came with it, in 0.16. A scheduler without such a method is newer than what this was written for."""
    try:
        from vllm.v1.core.sched.scheduler import Scheduler
    except ImportError:
        return True
    free = getattr(Scheduler, "_free_request", None)
    return free is None or "delay_free_blocks" in inspect.signature(free).parameters


def seed_sentence(vllm_config: Any) -> str:
    """Whether block hashes are the same in the next process. Not the fingerprint: that has the real NONE_HASH."""
    algorithm = str(getattr(vllm_config.cache_config, "prefix_caching_hash_algo", "builtin"))
    if os.environ.get("PYTHONHASHSEED") is not None:
        return f"Block hashes are {algorithm} with the fixed PYTHONHASHSEED={os.environ['PYTHONHASHSEED']}."
    from vllm.v1.core import kv_cache_utils

    if hasattr(kv_cache_utils, "DEFAULT_NONE_HASH_SEED") and not algorithm.startswith("xxhash"):
        return f"Block hashes are {algorithm} with the fixed seed of this vLLM."
    return (
        f"Block hashes are {algorithm} with a random seed: nothing that is stored is found after a restart or by another "
        "engine. Set PYTHONHASHSEED=0 in the environment of every engine."
    )
