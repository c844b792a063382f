"""Every hook of both halves raises: the engine goes on, answers the same, and nothing is left behind."""

from __future__ import annotations

from typing import Any

import pytest

from harness import Engine
from inspect_connector import clients_of, scheduler_half, worker_half
from prompts import prompt
from stories import compute, counted, exact, make, pairs, warm

SCHEDULER = (
    "on_new_request", "get_num_new_matched_tokens", "update_state_after_alloc", "build_orders", "on_report", "request_finished",
    "take_stats",
)  # fmt: skip
WORKER = ("bind", "start_loads", "save", "poll", "report", "take_stats")


class Broken(Exception):
    pass


def break_it(side: Any, method: str, *, times: int = 1 << 30, after: bool = False) -> list[int]:
    """Raises instead of doing its work, or after it."""
    real, count = getattr(side, method), [0]

    def broken(*arguments: Any) -> Any:
        count[0] += 1
        if count[0] > times:
            return real(*arguments)
        if after:
            real(*arguments)
        raise Broken(method)

    setattr(side, method, broken)
    return count


def halves(engine: Engine) -> dict[str, Any]:
    return {
        **{name: scheduler_half(engine.connector) for name in SCHEDULER},
        **{name: worker_half(engine.workers[0].connector) for name in WORKER},
    }


@pytest.mark.parametrize(
    ("scheduling", "mode", "after"), [("sync", "async", False), ("async", "staged", False), ("async", "async", True)]
)
@pytest.mark.parametrize("method", [*SCHEDULER, *WORKER])
def test_a_hook_that_always_raises_costs_the_cache_and_nothing_else(
    root: str, scheduling: str, mode: str, method: str, after: bool
) -> None:
    """Instead of its work, or after it."""
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 200))
        engine.errors_expected = True
        count = break_it(
            halves(engine)[method] if method != "take_stats" else scheduler_half(engine.connector), method, after=after
        )
        engine.add("a", prompt(1, 200))
        engine.add("b", prompt(1, 100) + prompt(3, 50), 20)
        engine.finish("a", "b")
        exact(engine, "a", "b")
        compute(engine, "c", prompt(2, 100))
        assert count[0] > 0
        assert counted(engine, "hook_errors") > 0 or method == "take_stats"
        let_go(engine)


@pairs
@pytest.mark.parametrize(
    "method", ["get_num_new_matched_tokens", "update_state_after_alloc", "build_orders", "on_report", *WORKER[:-1]]
)
def test_a_hook_that_raises_once_in_the_middle_of_a_load(root: str, scheduling: str, mode: str, method: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 200))
        engine.errors_expected = True
        for turn in range(4):
            engine.add("a", prompt(1, 200), 5)
            for _ in range(turn):
                engine.step()
            break_it(halves(engine)[method], method, times=1)
            engine.finish("a")
            exact(engine, "a")
            engine.run_until(lambda: not engine.scheduler.requests, what="no request left")
            if not hasattr(worker_half(engine.workers[0].connector), "link"):
                break  # retired: there is nothing left to break
            engine.forget_local()
        let_go(engine)


def let_go(engine: Engine) -> None:
    """A broken half may keep slots: closing its client is all that is asked of it. Blocks and requests are checked as ever."""
    for client in clients_of(engine.connector) + clients_of(engine.workers[0].connector):
        client.close()
