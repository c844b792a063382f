"""A worker's half over a fake sidecar, with KV memory that is a dictionary: block id → bytes.

One call of `step` is one engine step, in vLLM's order.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import pytest
from support import eventually

from kvlane import Client
from kvlane.options import Options
from kvlane.testing import WAIT_S, FakeSidecar, MemoryStore
from kvlane.vllm.config import ConnectorOptions
from kvlane.vllm.features import FailureBackend, Features
from kvlane.vllm.messages import CopyOrder, LoadOrder, Orders, StoreOrder, WorkerReport
from kvlane.vllm.transfers import ChunkBlocks, Settled, Transfer
from kvlane.vllm.worker_side import Opened, WorkerSide

BLOCK_BYTES = 64
PER_CHUNK = 2
CHUNK_BYTES = BLOCK_BYTES * PER_CHUNK
NAMESPACE = "tiny@1"


class Slow:
    """A transfer that is over when the test says so."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.done = False
        self.failed: str | None = None

    def finish(self, failed: str | None = None) -> None:
        if failed is None:
            self._work()
        self.done, self.failed = True, failed


class DictCopier:
    """Copies at once, or, while `slow`, into `running`."""

    groups = 1
    num_blocks = 100
    blocks_per_chunk = PER_CHUNK
    chunk_bytes = CHUNK_BYTES

    def __init__(self) -> None:
        self.kv: dict[int, bytes] = {}
        self.slow = False
        self.pinned = True
        self.failing: str | None = None
        self.running: list[Slow] = []
        self.copied_out: list[tuple[int, ...]] = []
        self.looks: tuple[int, Set[int]] = (0, set())
        self.closed = False

    def attach(self, client: Client) -> None:
        self.client = client

    def ready(self, life: int) -> bool:
        return self.pinned

    def look(self, life: int, in_use: Set[int]) -> None:
        self.looks = life, in_use

    def close(self) -> None:
        self.closed = True

    def copy_in(self, chunks: Sequence[ChunkBlocks]) -> Transfer:
        def work() -> None:
            for chunk in chunks:
                self._one_in(chunk)

        return self._run(work)

    def copy_out(self, chunks: Sequence[ChunkBlocks]) -> Transfer:
        self.copied_out += [chunk.blocks[0] for chunk in chunks]

        def work() -> None:
            for chunk in chunks:
                self._one_out(chunk)

        return self._run(work)

    def _run(self, work: Callable[[], None]) -> Transfer:
        if self.failing is not None:
            return Settled(self.failing)
        if self.slow:
            self.running.append(Slow(work))
            return self.running[-1]
        work()
        return Settled()

    def _one_in(self, chunk: ChunkBlocks) -> None:
        for i, block in enumerate(chunk.blocks[0]):
            if block:
                self.kv[block] = bytes(chunk.slot.view[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES])

    def _one_out(self, chunk: ChunkBlocks) -> None:
        for i, block in enumerate(chunk.blocks[0]):
            chunk.slot.view[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES] = self.kv[block]


def features(backend: FailureBackend = "failed_recving", *, worker_meta: bool = True) -> Features:
    return Features(worker_meta, backend == "failed_recving", True, True, "recompute", backend, "staged", True, ())


def page(n: int) -> bytes:
    return bytes([n]) * BLOCK_BYTES


class Rig:
    def __init__(
        self, fake: FakeSidecar, *, rank: int = 0, world_size: int = 1, slots: int = 16,
        backend: FailureBackend = "failed_recving", worker_meta: bool = True, wait: bool = True, **client: Any,
    ) -> None:  # fmt: skip
        self.fake = fake
        self.copier = DictCopier()
        self.options = ConnectorOptions(root="/nowhere", chunk_tokens=32, arena_mib=1)
        self.finished: list[str] = []
        self.failed: list[str] = []
        self.invalid: list[int] = []
        self.seen = WorkerReport()
        self.staged: list[int] = []
        self.counters: dict[str, int] = {}
        self.gauges: dict[str, float] = {}
        self.namespace: str | None = NAMESPACE

        def connect(wanted: Options) -> Client:
            return Client(dataclasses.replace(wanted, command=fake.options().command, slots=slots, **client))

        self.side = WorkerSide(
            self.options, features(backend, worker_meta=worker_meta), rank, world_size, connect,
            open_memory=lambda caches, config, per_chunk: Opened(self.copier, "layout"),
        )  # fmt: skip
        self.side.register({}, Config())
        if wait:
            self.client.wait_ready()

    @property
    def client(self) -> Client:
        assert self.side.link is not None
        return self.side.link.client

    @property
    def free_slots(self) -> int:
        free: int = self.client.client_stats()["slots_free"]
        return free

    def step(
        self, *, loads: Sequence[LoadOrder] = (), copies: Sequence[CopyOrder] = (), drops: Sequence[int] = (),
        stores: Sequence[StoreOrder] = (), commits: Sequence[str] = (), forgets: Sequence[str] = (),
        cancels: Sequence[str] = (),
    ) -> None:  # fmt: skip
        orders = Orders(self.namespace, [*loads], [*copies], [*drops], [*stores], [*commits], [*forgets], [*cancels])
        self.side.bind(orders)
        self.side.start_loads()
        self.side.save()
        said = self.side.poll()
        self.finished += sorted(said.finished_recving)
        self.failed += sorted(said.failed_recving)
        self.invalid += sorted(said.invalid_block_ids)
        report = self.side.report()
        if report is not None:
            self.staged += report.staged
            self.seen.merge(report)
        stats = self.side.take_stats() or {"c": {}, "g": {}}
        self.gauges.update(stats["g"])
        for name, n in stats["c"].items():
            self.counters[name] = self.counters.get(name, 0) + n

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Steps until it is so."""
        limit = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < limit, f"not within {WAIT_S} s: {what or condition}"
            time.sleep(0.002)
            self.step()

    def land(self, *pages: bytes, request: Mapping[str, Any] | None = None) -> None:
        """Answers a load: these bytes, one chunk each."""
        request = request or self.fake.expect("load")
        for slot, data in zip(request["slots"], pages, strict=True):
            self.fake.write(slot, data)
        self.fake.answer(request)


class Spec:
    block_size = 16
    page_size_bytes = BLOCK_BYTES


class Group:
    layer_names = ("layer",)
    kv_cache_spec = Spec()


class Config:
    num_blocks = 100
    kv_cache_groups = (Group(),)


Start = Callable[..., Rig]


@pytest.fixture
def start(fake: FakeSidecar) -> Iterator[Start]:
    """Makes a worker over the silent fake: the test answers."""
    rigs: list[Rig] = []

    def make(**how: Any) -> Rig:
        rigs.append(Rig(fake, **how))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.side.shutdown()


@pytest.fixture
def rig(start: Start) -> Rig:
    return start()


@pytest.fixture
def memory() -> Iterator[tuple[Rig, MemoryStore]]:
    """A worker over a cache in memory that works."""
    store = MemoryStore()
    with FakeSidecar(store) as fake:
        rig = Rig(fake)
        yield rig, store
        rig.side.shutdown()


def load(number: int, *keys: str, request: str = "r", timeout_ms: float = 2000) -> LoadOrder:
    return LoadOrder(number, request, keys, timeout_ms)


def copy(number: int, chunks: int, *blocks: int, skip: int = 0, request: str = "r") -> CopyOrder:
    return CopyOrder(number, request, chunks, skip, (blocks,))


__all__ = ["CHUNK_BYTES", "NAMESPACE", "Rig", "Start", "copy", "eventually", "features", "load", "page"]
