"""What stored bytes depend on, and what block hashes begin with."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FullAttentionSpec, SlidingWindowSpec, cache_config, vllm_config

from kvlane import _messages as wire
from kvlane.vllm.config import ConnectorOptions
from kvlane.vllm.fingerprint import HashSeed, Identity, hash_seed, identify, model_name, no_identity
from kvlane.vllm.geometry import read_geometry
from kvlane.vllm.messages import WorkerFacts

SEED = HashSeed("seed:x", True)


def of(config: Any = None, caches: Any = None, facts: tuple[WorkerFacts, ...] = (), **options: Any) -> Identity:
    config, caches = config or vllm_config(), caches or cache_config()
    chosen = ConnectorOptions(root="/nowhere", **options)
    identity = identify(chosen, read_geometry(chosen, config, caches), config, caches, facts, SEED)
    assert identity is not None
    return identity


def test_the_same_engine_has_the_same_namespace_and_it_is_one_the_store_takes() -> None:
    assert of() == of()
    assert re.fullmatch(r"some-model\.[0-9a-f]{12}", of().name)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("model_config", "model", "other/model"),
        ("model_config", "revision", "abc"),
        ("model_config", "dtype", "bfloat16"),
        ("model_config", "quantization", "fp8"),
        ("model_config", "quantization_config", {"linear": "fp8_per_block"}),
        ("model_config", "hf_overrides", {"rope_theta": 1}),
        ("load_config", "load_format", "dummy"),
        ("cache_config", "cache_dtype", "fp8"),
        ("cache_config", "prefix_caching_hash_algo", "sha256"),
        ("parallel_config", "world_size", 2),
        ("parallel_config", "decode_context_parallel_size", 2),
    ],
)
def test_another_configuration_is_another_namespace(part: str, name: str, value: object) -> None:
    config = vllm_config()
    setattr(getattr(config, part), name, value)
    assert of(config).name.rpartition(".")[2] != of().name.rpartition(".")[2]


def test_other_chunks_groups_weights_or_layouts_are_another_namespace() -> None:
    facts = (WorkerFacts(0, 1, "layout", 1, 1),)
    others = [
        of(chunk_tokens=4),
        of(caches=cache_config(SlidingWindowSpec(8))),
        of(caches=cache_config(FullAttentionSpec(), FullAttentionSpec())),
        of(weights_version="2"),
        of(facts=facts),
        of(facts=(WorkerFacts(0, 1, "other layout", 1, 1),)),
        of(),
    ]
    assert len({identity.name for identity in others}) == len(others)


def test_what_the_processor_makes_of_a_picture_counts() -> None:
    config = vllm_config()
    config.model_config.multimodal_config = SimpleNamespace(
        mm_processor_kwargs={"do_rescale": False}, video_pruning_rate=None
    )
    assert of(config).name != of().name


def test_scales_that_each_process_finds_for_itself_have_no_name() -> None:
    config = vllm_config()
    assert no_identity(config) == ""
    config.cache_config.calculate_kv_scales = True
    assert no_identity(config) == "", "nothing is scaled"
    config.cache_config.cache_dtype = "fp8_e4m3"
    assert "calculate_kv_scales" in no_identity(config)
    config.cache_config.calculate_kv_scales = False
    assert no_identity(config) == ""


def test_the_order_of_the_workers_does_not_count() -> None:
    one, two = WorkerFacts(0, 2, "a", 1, 1), WorkerFacts(1, 2, "b", 1, 1)
    assert of(facts=(one, two)) == of(facts=(two, one))


def test_the_seed_counts_for_dummy_weights_only() -> None:
    config = vllm_config()
    config.model_config.seed = 7
    assert of(config) == of()
    config.load_config.load_format = "dummy"
    dummy = vllm_config()
    dummy.load_config.load_format = "dummy"
    assert of(config) != of(dummy)


def test_a_name_can_be_given() -> None:
    assert of(namespace="mine").name.startswith("mine.")


def test_what_cannot_be_read_is_no_reason_to_fail() -> None:
    class Raises:
        def __getattr__(self, name: str) -> object:
            raise ValueError("no such model")

    config = vllm_config()
    config.model_config = Raises()
    assert of(config).name.startswith("n-a.")


def test_a_large_model_still_fits_the_stores_limit() -> None:
    caches = cache_config(*[FullAttentionSpec()] * 12)
    for group in caches.kv_cache_groups:
        group.layer_names = [f"model.layers.{number}.self_attn.attn" for number in range(200)]
    config = vllm_config()
    config.model_config.hf_overrides = {str(number): "x" * 100 for number in range(100)}
    text = json.dumps(of(config, caches).fingerprint)
    assert len(text) < wire.FINGERPRINT_BYTES_MAX


def test_addresses_are_no_part_of_it() -> None:
    class Odd:
        pass

    config, other = vllm_config(), vllm_config()
    config.model_config.hf_overrides, other.model_config.hf_overrides = Odd(), Odd()
    assert of(config) == of(other)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("meta-llama/Llama-3.1-8B", "meta-llama-Llama-3.1-8B"),
        ("/data/models/my model/", "my-model"),
        ("./-x", "x"),
        ("???", "model"),
        ("a" * 100, "a" * 40),
    ],
)
def test_a_models_name_is_made_fit_for_a_directory(model: str, name: str) -> None:
    assert model_name(model) == name


# --- what hashes begin with ---------------------------------------------------------------------------------------------


def test_a_seed_in_the_environment_is_stable() -> None:
    seed = hash_seed(SimpleNamespace(), "xxhash", {"PYTHONHASHSEED": "0"})
    assert seed.stable
    assert seed.text != hash_seed(SimpleNamespace(), "xxhash", {"PYTHONHASHSEED": "1"}).text


def test_newer_vllm_has_a_seed_of_its_own_for_cryptographic_hashes() -> None:
    module = SimpleNamespace(DEFAULT_NONE_HASH_SEED="fixed", NONE_HASH=b"x")
    assert hash_seed(module, "sha256_cbor", {}).stable
    assert not hash_seed(module, "xxhash", {}).stable


def test_a_random_beginning_is_a_namespace_of_this_session_and_the_warning_says_what_to_set() -> None:
    one, two = (hash_seed(SimpleNamespace(NONE_HASH=value), "sha256", {}) for value in (b"1", b"2"))
    assert not one.stable
    assert one.text != two.text
    assert "PYTHONHASHSEED=0" in one.warning


def test_a_beginning_that_is_not_there_yet_is_waited_for() -> None:
    seed = hash_seed(SimpleNamespace(), "sha256", {})
    assert seed.text is None
    options = ConnectorOptions(root="/nowhere")
    geometry = read_geometry(options, vllm_config(), cache_config())
    assert identify(options, geometry, vllm_config(), cache_config(), (), seed) is None
