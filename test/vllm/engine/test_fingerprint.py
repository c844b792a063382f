"""Blocks of another configuration are never found: no hit, and nothing wrong in what is said."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import StartEngine
from engines import CHUNK_TOKENS
from store import Store

LENGTH = 6 * CHUNK_TOKENS + 5


@pytest.fixture(scope="module")
def stored(start: StartEngine, prompt: Callable[[int], list[int]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    store = Store(tmp_path_factory.mktemp("fingerprint"))
    engine, asked = start(store.root), prompt(LENGTH)
    engine.generate(asked)
    store.wait_for(LENGTH // CHUNK_TOKENS)
    engine.close()
    return store.root, asked


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("another hash seed", {"seed": "1"}),
        ("another dtype", {"dtype": "bfloat16"}),
        ("another version of the weights", {"weights_version": "2"}),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_no_hit_with(what: str, other: dict[str, Any], start: StartEngine, stored: tuple[Path, list[int]]) -> None:
    root, asked = stored
    engine = start(root, **other)
    said = engine.generate(asked)
    numbers = engine.metrics()
    assert numbers["hit_tokens"] == 0
    assert numbers["loaded_chunks"] == 0
    assert numbers["lookups"] >= 1
    engine.forget()
    assert engine.generate(asked, skip_cache=True) == said
    assert len(Store(root).namespaces()) >= 2
    engine.close()
