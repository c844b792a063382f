"""The scheduler's half with a sidecar in memory and a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fakes import Engine, MakeEngine


@pytest.fixture
def engine_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeEngine]:
    """Makes engines with these options; closes them afterwards."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    engines: list[Engine] = []

    def make(*args: Any, **kwargs: Any) -> Engine:
        engines.append(Engine(*args, **kwargs))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(engine_of: MakeEngine) -> Engine:
    return engine_of()
