"""Stores that cannot be used: every answer is still the right one, and comes."""
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import StartEngine
from engines import CHUNK_TOKENS, Engine
from store import Store, damage, flip

LENGTH = 8 * CHUNK_TOKENS + 9
Prompt = Callable[[int], list[int]]
Truth = Callable[..., list[list[int]]]


@pytest.fixture(scope="module")
def on_tiny(start: StartEngine, tiny_mount: Path) -> Engine:
    return start(tiny_mount)


def test_a_full_store_drops_what_it_cannot_take(on_tiny: Engine, tiny_mount: Path, truth: Truth, prompt: Prompt) -> None:
    prompts = [prompt(LENGTH) for _ in range(4)]  # 8 MiB and more on 4 MiB
    for each in prompts:
        assert on_tiny.generate(each) == truth(each)
    on_tiny.forget()
    assert on_tiny.generate(*prompts) == truth(*prompts)
    numbers = on_tiny.metrics()
    assert numbers["stored_chunks"] < 4 * (LENGTH // CHUNK_TOKENS)
    assert not [path for path in Store(tiny_mount).blocks() if path.stat().st_size < CHUNK_TOKENS * 4096], "a chunk in part"


def test_a_store_that_turns_read_only_is_read_on(on_tiny: Engine, tiny_mount: Path, truth: Truth, prompt: Prompt) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tiny_mount], check=True, timeout=10)
    prompts = [prompt(LENGTH) for _ in range(2)]
    for _ in range(2):
        on_tiny.forget()
        assert on_tiny.generate(*prompts) == truth(*prompts)
    assert {key: value for key, value in on_tiny.metrics().items() if key.startswith("hook_errors") and value} == {}
    on_tiny.leave()


def test_a_directory_that_is_not_there_costs_nothing_but_the_cache(
    start: StartEngine, tmp_path: Path, truth: Truth, prompt: Prompt
) -> None:
    engine = start(tmp_path / "not" / "there")
    prompts = [prompt(LENGTH) for _ in range(2)]
    for _ in range(2):
        engine.forget()
        assert engine.generate(*prompts) == truth(*prompts)
    assert not (tmp_path / "not").exists()
    engine.leave()


@pytest.mark.parametrize("mode", ["staged", "async"])
def test_with_the_policy_recompute_damage_costs_a_recompute_too(
    mode: str, start: StartEngine, tmp_path: Path, truth: Truth, prompt: Prompt
) -> None:
    store = Store(tmp_path)
    engine = start(store.root, load_mode=mode, transfer={"kv_load_failure_policy": "recompute"})
    good, bad = prompt(LENGTH), prompt(LENGTH)
    assert engine.generate(good, bad) == truth(good, bad)
    before = store.wait_for(2 * (LENGTH // CHUNK_TOKENS))
    engine.forget()
    assert engine.generate(good, bad) == truth(good, bad)
    assert engine.metrics()["hit_tokens"] == 2 * 8 * CHUNK_TOKENS
    for path in before:
        damage(path, flip)
    engine.forget()
    assert engine.generate(good, bad) == truth(good, bad)
    numbers = engine.metrics()
    assert numbers["corrupt"] >= 2
    assert sum(value for key, value in numbers.items() if key.startswith("recomputed_tokens")) > 0
    engine.leave()
