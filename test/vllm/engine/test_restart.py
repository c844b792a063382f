"""Save, restart, load: token-exact and really loaded; and damage to the files costs a recompute, never a token."""
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import StartEngine
from engines import CHUNK_TOKENS, Engine
from store import Store, damage, empty, flip, truncate

NAMES = ("loaded", "bit flipped", "truncated", "empty file", "first chunk lost", "middle chunk lost", "all lost", "sidecar killed", "forgotten")
LENGTH = 10 * CHUNK_TOKENS + 17

Prompt = Callable[[int], list[int]]
Truth = Callable[..., list[list[int]]]


class Saved:
    def __init__(self, store: Store, prompts: dict[str, list[int]], files: dict[str, set[Path]]) -> None:
        self.store, self.prompts, self.files = store, prompts, files


@pytest.fixture(scope="module")
def saved(start: StartEngine, truth: Truth, prompt: Prompt, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """What an engine leaves that started on an empty store, and has ended."""
    store = Store(tmp_path_factory.mktemp("saved"))
    engine = start(store.root)
    prompts = {name: prompt(LENGTH) for name in NAMES}
    files: dict[str, set[Path]] = {}
    for name, each in prompts.items():
        before = store.blocks()
        assert engine.generate(each) == truth(each), f"an empty store changed what is said ({name})"
        files[name] = store.wait_for(LENGTH // CHUNK_TOKENS, before)
    numbers = engine.metrics()
    assert numbers["hit_tokens"] == 0
    assert numbers["stored_chunks"] == len(store.blocks())
    assert sum(value for key, value in numbers.items() if key.startswith("hook_errors")) == 0
    engine.leave()
    return Saved(store, prompts, files)


@pytest.fixture(scope="module")
def again(start: StartEngine, saved: Saved) -> Engine:
    """The next engine on the same store."""
    return start(saved.store.root)


def since(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {key: value - before.get(key, 0) for key, value in after.items()}


def test_what_one_engine_saved_the_next_one_loads_to_the_token(saved: Saved, again: Engine, truth: Truth) -> None:
    before = again.metrics()
    assert again.generate(saved.prompts["loaded"]) == truth(saved.prompts["loaded"])
    grown = since(before, again.metrics())
    assert grown["hit_tokens"] == 10 * CHUNK_TOKENS
    assert grown["requests_hit"] == 1
    assert grown["loaded_chunks"] == 10


@pytest.mark.parametrize(("name", "how"), [("bit flipped", flip), ("truncated", truncate), ("empty file", empty)])
def test_damaged_files_are_counted_and_computed_anew_to_the_token(
    saved: Saved, again: Engine, truth: Truth, name: str, how: Callable[[Path], None]
) -> None:
    for path in saved.files[name]:
        damage(path, how)
    before = again.metrics()
    assert again.generate(saved.prompts[name]) == truth(saved.prompts[name])
    grown = since(before, again.metrics())
    assert grown["corrupt"] >= 1 or how is empty  # an empty file is not even found
    assert grown["loaded_chunks"] == 0
    saved.store.wait_for(len(saved.files[name]), saved.store.blocks() - saved.files[name])


def test_what_was_computed_anew_is_stored_anew_and_loads(saved: Saved, again: Engine, truth: Truth) -> None:
    again.forget()
    before = again.metrics()
    assert again.generate(saved.prompts["bit flipped"]) == truth(saved.prompts["bit flipped"])
    grown = since(before, again.metrics())
    assert grown["corrupt"] == 0
    assert grown["loaded_chunks"] > 0


@pytest.mark.parametrize(("name", "kept"), [("first chunk lost", 0), ("middle chunk lost", 5), ("all lost", 0)])
def test_of_a_prefix_with_a_gap_what_is_before_the_gap_is_loaded(saved: Saved, again: Engine, truth: Truth, name: str, kept: int) -> None:
    # Chunks of one prompt are alike to the eye, and the order of writing is not promised: which is lost is found by trying on a copy.
    order = order_of(saved, name)
    for path in order if name == "all lost" else [order[kept]]:
        path.unlink()
    before = again.metrics()
    assert again.generate(saved.prompts[name]) == truth(saved.prompts[name])
    assert since(before, again.metrics())["hit_tokens"] == kept * CHUNK_TOKENS


def order_of(saved: Saved, name: str) -> list[Path]:
    """The files of a prompt from its beginning. vLLM's hashes are chained; here they are reckoned as vLLM does."""
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core import kv_cache_utils

    function = get_hash_fn_by_name("sha256")
    kv_cache_utils.init_none_hash(function)
    parent, names = kv_cache_utils.NONE_HASH, []
    tokens = saved.prompts[name]
    for at in range(0, len(tokens) - 31, 32):
        parent = kv_cache_utils.hash_block_tokens(function, parent, tuple(tokens[at : at + 32]))
        names.append(parent.hex())
    by_name = {path.name: path for path in saved.files[name]}
    return [next(path for file, path in by_name.items() if file.startswith(chunk)) for chunk in names[1::2]]


def test_sidecars_killed_in_the_middle_cost_a_recompute(saved: Saved, again: Engine, truth: Truth) -> None:
    assert again.kill_sidecars() == 2  # the scheduler's and the worker's
    assert again.generate(saved.prompts["sidecar killed"]) == truth(saved.prompts["sidecar killed"])


def test_after_a_sidecars_death_there_are_hits_again(saved: Saved, again: Engine, truth: Truth) -> None:
    for _ in range(50):
        again.forget()
        before = again.metrics()
        assert again.generate(saved.prompts["loaded"]) == truth(saved.prompts["loaded"])
        if since(before, again.metrics())["hit_tokens"] > 0:
            break
    else:
        pytest.fail("no hit in 50 tries after the sidecars were killed")
    assert again.metrics()["sidecar_restarts"] >= 1


def test_forgetting_with_the_store_leaves_no_stale_hits(saved: Saved, again: Engine, truth: Truth) -> None:
    assert again.forget(store=True)
    before = again.metrics()
    assert again.generate(saved.prompts["forgotten"]) == truth(saved.prompts["forgotten"])
    assert since(before, again.metrics())["hit_tokens"] == 0


def test_and_what_is_stored_after_it_is_found(saved: Saved, again: Engine, truth: Truth) -> None:
    for _ in range(50):  # until its store is through
        again.forget()
        before = again.metrics()
        assert again.generate(saved.prompts["forgotten"]) == truth(saved.prompts["forgotten"])
        if since(before, again.metrics())["hit_tokens"] == 10 * CHUNK_TOKENS:
            return
    pytest.fail("what was computed after the reset was not found")


def test_nothing_was_caught_in_a_hook_on_the_way(again: Engine) -> None:
    assert {key: value for key, value in again.metrics().items() if key.startswith("hook_errors") and value} == {}
    again.leave()
