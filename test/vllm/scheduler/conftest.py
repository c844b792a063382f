"""Runs with vLLM's interpreter (test/vllm/run.sh). A store per test; a global limit, because nothing in vLLM ends a load
that is never reported."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("PYTHONHASHSEED", "0")  # read by vLLM when an engine is made, not only by the interpreter
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
for path in (HERE.parents[2] / "clients" / "python" / "tests", HERE.parents[2] / "clients" / "python" / "src", HERE):
    sys.path.insert(0, str(path))

import pytest  # noqa: E402

TEST_S = 60


@pytest.fixture(autouse=True)
def no_test_lasts_for_ever() -> Iterator[None]:
    faulthandler.dump_traceback_later(TEST_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def root(tmp_path: Path) -> str:
    made = tmp_path / "store"
    made.mkdir()
    return str(made)


@pytest.fixture(params=["sync", "async"])
def scheduling(request: pytest.FixtureRequest) -> str:
    """vLLM's two ways to schedule."""
    return str(request.param)
