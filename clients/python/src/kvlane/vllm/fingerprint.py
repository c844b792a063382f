"""What stored KV bytes depend on, as a small JSON object, and the namespace's name made from it.

Two engines share blocks only if everything here is equal. Everything is read by attribute, and what a vLLM does not have
becomes "n/a": another vLLM version may then get another namespace, which costs a cold start and never a wrong byte.
Surprising: a model's name is no content hash. Other weights under the same name need another `weights_version`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .config import ConnectorOptions
from .geometry import Geometry
from .messages import WorkerFacts

FORMAT = 1
"""Of our own: raised when the bytes of a chunk are arranged otherwise."""
NAME_CHARS_MAX = 40
DIGEST_CHARS = 12
TEXT_CHARS_MAX = 512
"""Of one value. Longer ones are represented by their digest: a fingerprint has 16 KiB in all."""
MISSING = "n/a"

SET_SEED = "Set PYTHONHASHSEED=0 in the environment of every engine that shares the store"


@dataclass(frozen=True)
class Identity:
    """What the namespace is asked with."""

    name: str
    fingerprint: Mapping[str, Any]
    warning: str = ""


@dataclass(frozen=True)
class HashSeed:
    """What block hashes begin with. `text` None: not known yet."""

    text: str | None
    stable: bool
    warning: str = ""


def hash_seed(module: object, algorithm: str, environ: Mapping[str, str]) -> HashSeed:
    """`module`: vllm.v1.core.kv_cache_utils, or what stands for it."""
    seed = environ.get("PYTHONHASHSEED")
    if seed is not None:
        return HashSeed("seed:" + _digest(seed), True)
    default = getattr(module, "DEFAULT_NONE_HASH_SEED", None)
    if isinstance(default, str) and algorithm.startswith("sha"):
        return HashSeed("default:" + _digest(default), True)
    none_hash = getattr(module, "NONE_HASH", None)
    warning = (
        f"block hashes ({algorithm}) begin with a random number of this process, so nothing that is stored now can be found "
        f"after a restart or by another engine, and stays on disk unused. {SET_SEED}"
        + ("" if algorithm.startswith("sha") else ", or use prefix_caching_hash_algo sha256_cbor")
        + "."
    )
    if none_hash is None:
        return HashSeed(None, False, warning)
    return HashSeed(
        "session:" + _digest(none_hash.hex() if isinstance(none_hash, bytes) else str(none_hash)), False, warning
    )


def no_identity(vllm_config: Any) -> str:
    """Why stored bytes would depend on more than can be named; empty: they do not."""
    dtype = _value(_read(vllm_config, "cache_config.cache_dtype"))
    if _read(vllm_config, "cache_config.calculate_kv_scales") is True and dtype.startswith("fp8"):
        return (
            "with calculate_kv_scales the scales of an fp8 KV cache are taken from the first prompt of each process, and what "
            "one has stored is wrong for the next; leave it out, or use another kv_cache_dtype"
        )
    return ""


def identify(
    options: ConnectorOptions,
    geometry: Geometry,
    vllm_config: Any,
    kv_cache_config: Any,
    facts: Sequence[WorkerFacts],
    seed: HashSeed,
) -> Identity | None:
    """None: what hashes begin with is not known yet."""
    if seed.text is None:
        return None
    fingerprint = _fields(options, geometry, vllm_config, kv_cache_config, facts, seed.text)
    model = options.namespace or model_name(_read(vllm_config, "model_config.model"))
    return Identity(f"{model}.{_digest(fingerprint)}", fingerprint, seed.warning)


def model_name(model: object) -> str:
    """A name or a path, as far as a namespace may carry it."""
    text = str(model).rstrip("/")
    parts = text.split("/")
    text = parts[-1] if text.startswith(("/", ".")) or len(parts) > 2 else "-".join(parts)
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:NAME_CHARS_MAX]
    return re.sub(r"^[^A-Za-z0-9]+", "", text) or "model"


def _fields(
    options: ConnectorOptions,
    geometry: Geometry,
    config: Any,
    kv_cache_config: Any,
    facts: Sequence[WorkerFacts],
    seed: str,
) -> dict[str, Any]:
    load_format = _value(_read(config, "load_config.load_format"))
    dummy = "dummy" in load_format
    return {
        "format": FORMAT,
        "model": _texts(
            config, "model_config.", ("model", "revision", "quantization", "quantization_config", "dtype", "max_model_len")
        ),
        "overrides": _value(_read(config, "model_config.hf_overrides")),
        "rope": _texts(config, "model_config.hf_text_config.", ("rope_parameters", "rope_scaling", "rope_theta")),
        "weights": {
            "version": options.weights_version,
            "load_format": load_format,
            "seed": _value(_read(config, "model_config.seed")) if dummy else MISSING,
        },
        # Of the engine, not of a request: block hashes name the picture, not what the processor makes of it.
        "media": _texts(config, "model_config.multimodal_config.", ("mm_processor_kwargs", "video_pruning_rate")),
        "draft": _texts(config, "speculative_config.", ("model", "method", "revision", "num_speculative_tokens")),
        "kv": _texts(config, "cache_config.", ("cache_dtype", "calculate_kv_scales", "kv_cache_layout")),
        "tokens": {"block": geometry.block_tokens, "hash": geometry.hash_tokens, "blocks": geometry.blocks_per_chunk},
        "groups": [_group(group) for group in getattr(kv_cache_config, "kv_cache_groups", None) or ()],
        "heads": _texts(config, "model_config.hf_text_config.", ("num_hidden_layers", "num_key_value_heads", "head_dim")),
        "parallel": _texts(
            config,
            "parallel_config.",
            (
                "world_size",
                "tensor_parallel_size",
                "pipeline_parallel_size",
                "prefill_context_parallel_size",
                "decode_context_parallel_size",
                "cp_kv_cache_interleave_size",
            ),
        ),
        "attention": _value(_read(config, "attention_config.backend")),
        "runner_v2": _value(_read(config, "use_v2_model_runner")),
        "hash": {"algorithm": _value(_read(config, "cache_config.prefix_caching_hash_algo")), "seed": seed},
        "workers": _digest([[each.rank, each.layout, each.chunk_bytes] for each in sorted(facts, key=lambda f: f.rank)])
        if facts
        else MISSING,
    }


def _group(group: Any) -> dict[str, Any]:
    spec = getattr(group, "kv_cache_spec", None)
    names = ("block_size", "page_size_bytes", "num_kv_heads", "head_size", "dtype", "sliding_window", "kv_quant_mode")
    layers = [str(name) for name in getattr(group, "layer_names", None) or ()]
    return {
        "spec": type(spec).__name__,
        "layers": len(layers),
        "names": _digest(layers),
        **{name: _value(_read(spec, name)) for name in names},
    }


def _texts(config: Any, prefix: str, names: Iterable[str]) -> dict[str, str]:
    return {name: _value(_read(config, prefix + name)) for name in names}


def _read(thing: Any, path: str) -> Any:
    """Follows attributes; MISSING where one is not there or cannot be read."""
    for name in path.split("."):
        try:
            thing = getattr(thing, name)
        except Exception:  # properties compute, and some raise on models they do not know
            return MISSING
        if thing is None:
            return None
    return thing


def _value(value: Any) -> str:
    """A text that is the same for the same value in every process: no addresses, no order of a set."""
    if isinstance(value, Mapping):
        text = json.dumps(sorted((str(key), _value(each)) for key, each in value.items()))
    elif isinstance(value, (list, tuple)):
        text = json.dumps([_value(each) for each in value])
    elif isinstance(value, (set, frozenset)):
        text = json.dumps(sorted(_value(each) for each in value))
    elif callable(value):
        text = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    else:
        text = re.sub(r" at 0x[0-9a-f]+", "", str(value))
    return text if len(text) <= TEXT_CHARS_MAX else "digest:" + _digest(text)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]
