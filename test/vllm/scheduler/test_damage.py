"""Files that are damaged or gone: what is whole before them is used, the rest is computed, nothing wrong is ever used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import Engine
from prompts import prompt
from stories import CHUNK, both_modes, claims, compute, counted, exact, files, make, pairs, ready, warm, written

ASKED_MAX = 2000
"""Times the scheduler may ask for one request's hit: it asks about once a millisecond while a load lasts."""


def flip(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(4096 + 5000)
        byte = opened.read(1)
        opened.seek(-1, 1)
        opened.write(bytes([byte[0] ^ 0xFF]))


def cut(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(4096 + 1000)


DAMAGES: list[Callable[[Path], None]] = [flip, cut, Path.unlink]


def stored(engine: Engine, chunk: int) -> Path:
    """The file of this chunk of prompt(1, …)."""
    request = next(each for each in engine.requests.values() if list(each.prompt_token_ids[:CHUNK]) == prompt(1, CHUNK))
    digest = bytes(request.block_hashes[(chunk + 1) * 2 - 1]).hex()
    (file,) = [each for each in files(engine.setup.root) if each.stem.startswith(digest)]
    return file


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pairs
def test_before_a_damaged_chunk_all_is_used_and_the_rest_is_computed(
    root: str, scheduling: str, mode: str, damage: Callable[[Path], None]
) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 200))
        damage(stored(engine, 2))
        compute(engine, "hit", prompt(1, 200))
        if mode == "staged":
            claims(engine, "hit", 2 * CHUNK)
        assert len(engine.answers["hit"]) < ASKED_MAX
        engine.forget_local()
        compute(engine, "later", prompt(1, 200))


@pytest.mark.parametrize("backend", ["failed_recving", "block_ids"])
def test_a_load_that_fails_after_its_claim_is_computed_whoever_is_told(
    root: str, scheduling: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "block_ids":
        detect_as(monkeypatch, failed_recving=False)
    with Engine(make(root, scheduling=scheduling, load_mode="async")) as engine:
        assert engine.connector._features.failure_backend == backend
        warm(engine, prompt(1, 200))
        flip(stored(engine, 3))
        engine.add("running", prompt(5, 40), 30)
        engine.add("hit", prompt(1, 200))
        engine.finish("hit", "running")
        exact(engine, "hit", "running")
        claims(engine, "hit", 6 * CHUNK)
        assert counted(engine, "corrupt") == 1


def test_where_a_failure_could_not_be_told_nothing_is_claimed(
    root: str, scheduling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect_as(monkeypatch, failed_recving=False, load_errors=False)
    with Engine(make(root, scheduling=scheduling)) as engine:
        warm(engine, prompt(1, 100))
        compute(engine, "no hit", prompt(1, 100))
        claims(engine, "no hit", 0)


def test_under_the_policy_fail_nothing_is_claimed_where_it_cannot_be_staged(
    root: str, scheduling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect_as(monkeypatch, worker_meta=False)
    with Engine(make(root, scheduling=scheduling, policy="fail")) as engine:
        warm(engine, prompt(1, 100))
        compute(engine, "no hit", prompt(1, 100))
        claims(engine, "no hit", 0)


def test_without_reports_from_the_workers_hits_are_loaded_in_the_mode_async(
    root: str, scheduling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect_as(monkeypatch, worker_meta=False)
    with Engine(make(root, scheduling=scheduling)) as engine:
        assert engine.connector._features.load_mode == "async"
        warm(engine, prompt(1, 200))
    with Engine(make(root, scheduling=scheduling)) as engine:  # the former remembers what was not there, for a second
        ready(engine)
        compute(engine, "hit", prompt(1, 200))
        claims(engine, "hit", 192)
        engine.forget_local()
        flip(stored(engine, 3))
        compute(engine, "damaged", prompt(1, 200))


@pytest.mark.parametrize("backend", ["failed_recving", "block_ids"])
@pairs
def test_a_store_in_which_everything_is_damaged_ends_in_a_bounded_number_of_questions(
    root: str, scheduling: str, mode: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "block_ids":
        detect_as(monkeypatch, failed_recving=False)
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 200), prompt(2, 200))
        for file in files(root):
            flip(file)
        for name in ("a", "b", "c"):
            engine.add(name, prompt(1, 200))
            engine.add(name + "2", prompt(2, 200))
        engine.finish(*(name + other for name in "abc" for other in ("", "2")))
        exact(engine)
        for name in ("a", "b", "c", "a2", "b2", "c2"):
            claims = [answer for answer in engine.answers[name] if answer[0]]
            assert len(claims) <= 1, f"{name} was claimed {len(claims)} times"
            assert len(engine.answers[name]) < ASKED_MAX


@both_modes
def test_a_chunk_that_was_damaged_is_stored_anew_and_found_again(root: str, mode: str) -> None:
    with Engine(make(root, load_mode=mode)) as engine:
        warm(engine, prompt(1, 100))
        flip(stored(engine, 1))
        compute(engine, "damaged", prompt(1, 100))
    with Engine(make(root, load_mode=mode)) as engine:  # a new engine does not remember what was bad
        ready(engine)
        compute(engine, "computes", prompt(1, 100))
        written(engine, 3)
        engine.forget_local()
    with Engine(make(root, load_mode=mode)) as engine:
        ready(engine)
        compute(engine, "hit", prompt(1, 100))
        claims(engine, "hit", 96)


def detect_as(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    """As if this vLLM were another."""
    import dataclasses

    from kvlane.vllm import connector

    real = connector.detect
    monkeypatch.setattr(connector, "detect", lambda *arguments: dataclasses.replace(real(*arguments), **facts))
