"""Runs with vLLM's interpreter (test/vllm/run.sh). A store per test; a global limit, because nothing in vLLM ends a load
that is never reported."""

from __future__ import annotations

import faulthandler
import os
import re
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before 0.18 workers cannot tell the scheduler anything: no staged loads, no hits under the policy fail, no report that
    could break, and ranks that do not know of each other."""
    from vllm.v1.outputs import KVConnectorOutput

    if "kv_connector_worker_meta" in KVConnectorOutput.__dataclass_fields__:
        return
    needs_it = {"staged", "fail", "report"}

    def wants_it(item: pytest.Item) -> bool:
        return "test_ranks" in item.nodeid or not needs_it.isdisjoint(re.split(r"[\[\]-]", item.nodeid))

    left_out = [item for item in items if wants_it(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


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
