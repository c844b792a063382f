"""What most tests begin or end with."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import Engine, Setup
from inspect_connector import namespace, slots_taken
from model import expected

CHUNK = 32
"""Tokens; see Setup.extra_config."""

WARM_TRIES = 5

MODES = ("staged", "async")
both_modes = pytest.mark.parametrize("mode", MODES)
pairs = pytest.mark.parametrize(("scheduling", "mode"), [("sync", "async"), ("async", "staged")])
"""Where all four would show no more: each of the two once."""


def make(root: str, **fields: Any) -> Setup:
    """A Setup; what is no field of it is an option of the connector."""
    names = {each.name for each in dataclasses.fields(Setup)}
    options = {name: fields.pop(name) for name in list(fields) if name not in names}
    return Setup(root=root, options=options, **fields)


def files(root: str | Path) -> list[Path]:
    """Stored chunks, of all ranks. Never of a mount that may hang: give the directory behind it."""
    return sorted(Path(root).glob("blocks/*/*/*.kvb"))


def of_rank(root: str | Path, rank: int) -> list[Path]:
    return [file for file in files(root) if file.stem.endswith(f"{rank:04x}")]


def ready(engine: Engine) -> None:
    """Until all sidecars are up and the namespace is agreed on: what comes before that is not cached, and needs not be."""
    clients = engine.clients()
    assert len(clients) == engine.setup.world + 1
    engine.run_until(lambda: all(client.state == "up" for client in clients), what="sidecars")
    engine.run_until(lambda: namespace(engine.connector), what="a namespace")


def compute(engine: Engine, name: str, prompt: Sequence[int], max_tokens: int = 3, **fields: Any) -> None:
    """To the end, and right."""
    engine.add(name, prompt, max_tokens, **fields)
    engine.finish(name)
    exact(engine, name)


def exact(engine: Engine, *names: str) -> None:
    for name in names or engine.requests:
        request = engine.requests[name]
        assert engine.reason[name] == "length", f"{name} ended with {engine.reason[name]}"
        assert engine.output[name] == expected(list(request.prompt_token_ids), request.max_tokens), name


def claims(engine: Engine, name: str, tokens: int) -> None:
    """So many tokens were claimed for it last, or never any (0)."""
    kept = ("lookups", "lookup_timeouts", "load_timeouts", "load_failures", "refused", "not_worth", "hook_errors")
    told = {each: counted(engine, each) for each in kept}
    assert engine.claimed(name) == tokens, f"{name} was answered {engine.answers.get(name)}; {told}"


def warm(engine: Engine, *prompts: Sequence[int], behind: str | Path | None = None, chunk: int = CHUNK) -> None:
    """These prompts are stored, on every rank, and vLLM itself has forgotten them."""
    ready(engine)
    where = behind or engine.setup.root
    before = len(files(where))
    chains = {tuple(prompt[: (index + 1) * chunk]) for prompt in prompts for index in range(len(prompt) // chunk)}
    wanted = before + len(chains) * engine.setup.world
    for attempt in range(WARM_TRIES):
        for number, prompt in enumerate(prompts):
            compute(engine, f"warm{before}-{number}-{attempt}", prompt, 1)
        engine.run_until(lambda: len(files(where)) >= wanted or settled(engine), what=f"{wanted} files")
        if len(files(where)) >= wanted:
            break
        engine.forget_local()  # a machine so busy that a store was dropped: it is computed again
    written(engine, wanted, where)
    engine.forget_local()


def settled(engine: Engine) -> bool:
    """No store under way, also none that waits for another rank."""
    return not engine.scheduler.has_requests() and no_store_under_way(engine)


def no_store_under_way(engine: Engine) -> bool:
    """Nor a load: no slot is taken."""
    return not any(slots_taken(client) for client in engine.clients())


def written(engine: Engine, count: int, where: str | Path | None = None) -> None:
    """So many files are there, and the scheduler has heard of them: until then it remembers that they were not."""
    place = where or engine.setup.root
    engine.run_until(lambda: len(files(place)) >= count, what=f"{count} files")
    engine.run_until(lambda: no_store_under_way(engine), what="the stores reported")
    engine.in_flight_work()
    if not engine.connector._features.worker_meta:  # before 0.18 it never hears of them, and forgets after a second
        forgotten = time.monotonic() + 1.1
        engine.run_until(lambda: time.monotonic() > forgotten, what="a second to be over")


def counted(engine: Engine, name: str) -> float:
    return engine.counted(name)


def recording(engine: Engine, target: object, method: str, then: Callable[..., Any] | None = None) -> list[tuple[Any, ...]]:
    """Every call's arguments. `then` is called instead of the method."""
    calls: list[tuple[Any, ...]] = []
    real = getattr(target, method)

    def called(*arguments: Any) -> Any:
        calls.append(arguments)
        return (then or real)(*arguments)

    setattr(target, method, called)
    return calls
