"""kvlane as vLLM's external KV cache: `KvlaneConnector`, loaded by name.

    vllm serve … --kv-transfer-config '{"kv_connector": "KvlaneConnector", "kv_connector_module_path": "kvlane.vllm",
        "kv_role": "kv_both", "kv_load_failure_policy": "recompute", "kv_connector_extra_config": {"root": "/mnt/kv"}}'

Importing this package imports neither vLLM nor torch, and starts nothing: the class is made when it is asked for.
"""

from __future__ import annotations

from typing import Any

__all__ = ["KvlaneConnector"]


def __getattr__(name: str) -> Any:
    if name == "KvlaneConnector":
        from .connector import KvlaneConnector

        return KvlaneConnector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
