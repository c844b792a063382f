"""Engines cost 10 s to 15 s each: what can share one does. The order of the tests in a file is the order of the story."""
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from engines import Engine

PATIENT = {"timeout_ms": 30_000, "lookup_budget_ms": 30_000, "chunk_tokens": 64}  # a busy machine must not look like a slow store
StartEngine = Callable[..., Engine]


@pytest.fixture(scope="session")
def model() -> Path:
    return Path(os.environ["KVLANE_VLLM_MODEL"])  # environment.sh


@pytest.fixture(scope="session")
def start(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartEngine]:
    """start(root, option=…) → an engine with kvlane on that directory; start(None): without a connector."""
    os.environ["PYTHONFAULTHANDLER"] = "1"
    logs = tmp_path_factory.mktemp("logs")
    engines: list[Engine] = []

    def starts(root: Path | None, *, dtype: str = "float32", seed: str = "0", transfer: dict[str, Any] | None = None, **options: Any) -> Engine:
        connector = None if root is None else {"root": str(root), **PATIENT, **options}
        log = logs / f"engine-{len(engines)}.log"
        engine = Engine(model, log, connector, transfer=transfer or {}, dtype=dtype, seed=seed)
        engines.append(engine)
        print(f"engine {len(engines)} ready after {engine.ready_s:.1f} s")
        return engine

    yield starts
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def truth(start: StartEngine) -> Iterator[Callable[..., list[list[int]]]]:
    """What a vLLM without a connector says to prompts; asked once each."""
    engine = start(None)
    known: dict[tuple[int, ...], list[int]] = {}

    def says(*prompts: list[int]) -> list[list[int]]:
        for prompt in prompts:
            if tuple(prompt) not in known:
                engine.forget()
                known[tuple(prompt)] = engine.generate(prompt)[0]
        return [known[tuple(prompt)] for prompt in prompts]

    yield says
    engine.close()


@pytest.fixture(scope="session")
def prompt() -> Callable[[int], list[int]]:
    """A prompt of so many tokens that no other prompt begins with."""
    draw = random.Random(3)
    return lambda length: [draw.randrange(10, 1000) for _ in range(length)]


@pytest.fixture(scope="session")
def tiny_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 4 MiB of its own: room for a few chunks."""
    if os.geteuid() != 0 or "KVLANE_LAB_ANY_NAMESPACE" not in os.environ:
        pytest.skip("SKIPPED: mounting wants root and a private mount namespace, which `npm run test:vllm` makes as root")
    at = tmp_path_factory.mktemp("tiny")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tiny", at], check=True, timeout=10)
    yield at
    subprocess.run(["umount", "--lazy", at], check=True, timeout=10)
