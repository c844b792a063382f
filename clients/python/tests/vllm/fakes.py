"""An engine of a few lines for the scheduler's half: requests, configurations and steps as vLLM has them, by attribute.

A block has 4 tokens, a chunk 2 blocks. A request's text decides its hashes: "ab" and "abc" share two chunks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from kvlane import Client, Options
from kvlane.testing import WAIT_S, FakeSidecar, MemoryStore
from kvlane.vllm.config import ConnectorOptions
from kvlane.vllm.features import Features
from kvlane.vllm.messages import CopyOrder, Orders, Staged, WorkerFacts, WorkerReport
from kvlane.vllm.scheduler_side import SchedulerSide

BLOCK = 4
PER_CHUNK = 2
CHUNK = BLOCK * PER_CHUNK


class Clock:
    """Time stands still until the test moves it."""

    def __init__(self) -> None:
        self.us = 1_000_000_000

    def __call__(self) -> int:
        return self.us

    def pass_ms(self, ms: float) -> None:
        self.us += int(ms * 1000)


class FullAttentionSpec:
    block_size = BLOCK
    page_size_bytes = 4096


class SlidingWindowSpec:
    block_size = BLOCK
    page_size_bytes = 4096

    def __init__(self, window: int) -> None:
        self.sliding_window = window


def block_hashes(text: str) -> list[bytes]:
    """Chained, one per block; each letter is one chunk."""
    hashes: list[bytes] = []
    for number in range(len(text) * PER_CHUNK):
        before = hashes[-1] if hashes else b"none"
        hashes.append(hashlib.sha256(before + text[number // PER_CHUNK].encode()).digest())
    return hashes


def keys(text: str) -> list[str]:
    """The chunk keys of a text."""
    return [each.hex() for each in block_hashes(text)[PER_CHUNK - 1 :: PER_CHUNK]]


@dataclass
class Request:
    """`extra` tokens beyond the whole chunks."""

    request_id: str
    text: str
    extra: int = 1
    skip_reading_prefix_cache: bool = False
    num_preemptions: int = 0
    block_hashes: list[bytes] = field(default_factory=list)
    num_tokens: int = 0
    num_prompt_tokens: int = 0

    def __post_init__(self) -> None:
        self.block_hashes = block_hashes(self.text)
        self.num_tokens = self.num_prompt_tokens = len(self.text) * CHUNK + self.extra


def vllm_config(**parallel: int) -> Any:
    return SimpleNamespace(
        model_config=SimpleNamespace(model="some/model", revision=None, quantization=None, dtype="float16", seed=0),
        load_config=SimpleNamespace(load_format="auto"),
        cache_config=SimpleNamespace(block_size=BLOCK, cache_dtype="auto", prefix_caching_hash_algo="sha256_cbor"),
        parallel_config=SimpleNamespace(**{"world_size": 1, "decode_context_parallel_size": 1, **parallel}),
        kv_transfer_config=SimpleNamespace(kv_role="kv_both"),
    )


def cache_config(*specs: object) -> Any:
    groups = [SimpleNamespace(kv_cache_spec=spec, layer_names=["layer.0"]) for spec in specs or (FullAttentionSpec(),)]
    return SimpleNamespace(kv_cache_groups=groups)


def features(mode: str = "staged", **changes: Any) -> Features:
    return Features(
        **{
            "worker_meta": mode == "staged",
            "failed_recving": True,
            "hma": True,
            "handshake": True,
            "policy": "recompute",
            "failure_backend": "failed_recving",
            "load_mode": mode,
            "claims": mode != "none",
            "reasons": (),
            **changes,
        }
    )


class Store(MemoryStore):
    """Namespaces with generations, and answers that the test may hold back or spoil."""

    def __init__(self) -> None:
        super().__init__()
        self.generation = 0
        self.silent: set[str] = set()
        self.answers: dict[str, Mapping[str, Any]] = {}
        self.asked: list[Mapping[str, Any]] = []

    def __call__(self, fake: FakeSidecar, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        op = request["op"]
        self.asked.append(request)
        if op in self.silent:
            return None
        if op in self.answers:
            return self.answers[op]
        if op == "namespace":
            self.generation += bool(request["bump"])
            name = f"{request['name']}@{self.generation}"
            state = {"state": "matches", "name": request["name"], "generation": self.generation, "key_namespace": name}
            return {**state, "fingerprint": request["fingerprint"]}
        return super().__call__(fake, request)

    def count(self, op: str) -> int:
        return sum(request["op"] == op for request in self.asked)


class Engine:
    """One SchedulerSide with its sidecar, and vLLM's part in its life."""

    def __init__(
        self,
        mode: str = "staged",
        *,
        world_size: int = 1,
        slots: int = 64,
        specs: tuple[object, ...] = (),
        role: str = "kv_both",
        facts: bool = True,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.store = Store()
        self.fake = FakeSidecar(self.store)
        self.said: list[str] = []
        self.clients: list[Client] = []
        config = vllm_config(world_size=world_size)
        config.kv_transfer_config.kv_role = role
        self.world_size, self.slots = world_size, slots
        self.groups = len(specs) or 1
        self.side = SchedulerSide(
            ConnectorOptions(**{"root": "/nowhere", "chunk_tokens": CHUNK, **options}),
            features(mode, handshake=facts),
            self._client,
            config,
            cache_config(*specs),
            say=self.said.append,
            now_us=self.clock,
        )
        if facts:
            self.tell_facts()
        self.settle()
        self.next_block = 1
        self.tables: dict[str, tuple[list[int], ...]] = {}

    def _client(self, options: Options) -> Client:
        client = Client(self.fake.options(slots=options.slots, timeout_ms=options.timeout_ms))
        self.clients.append(client)
        client.wait_ready()
        return client

    def tell_facts(self) -> None:
        self.side.set_worker_facts(
            [WorkerFacts(rank, self.world_size, "layout", 8192, self.slots, PER_CHUNK) for rank in range(self.world_size)]
        )

    def close(self) -> None:
        self.side.shutdown()
        self.fake.__exit__()

    # --- storage -----------------------------------------------------------------------------------------------------

    @property
    def namespace(self) -> str | None:
        return self.side.build_orders(step()).namespace

    def have(self, text: str) -> None:
        """These chunks are on storage."""
        for key in keys(text):
            self.store.blocks[f"{self.namespace}/{key}0000"] = b""

    def settle(self) -> None:
        """Until every answer that the sidecar gives has arrived."""
        client = self.clients[0]
        if client.state == "up":
            client.ping(WAIT_S * 1000)

    # --- vLLM's part -------------------------------------------------------------------------------------------------

    def arrive(self, request: Request) -> Request:
        self.side.on_new_request(request)
        self.settle()
        return request

    def ask(self, request: Request, computed: int = 0) -> tuple[int | None, bool]:
        """Settles first: what has been asked of the sidecar has been answered, if it answers at all."""
        self.settle()
        return self.side.get_num_new_matched_tokens(request, computed)

    def allocate(self, request: Request, external: int, blocks: int | None = None) -> tuple[list[int], ...]:
        many = -(-request.num_tokens // BLOCK) if blocks is None else blocks
        table = tuple(list(range(self.next_block + g * 1000, self.next_block + g * 1000 + many)) for g in range(self.groups))
        self.next_block += many
        self.tables[request.request_id] = table
        self.side.update_state_after_alloc(request, table, external)
        return table

    def orders(self, *new: tuple[Request, int, int], cached: Any = None) -> Orders:
        """One step that schedules `new`: (request, computed tokens, tokens)."""
        return self.side.build_orders(step(*[(r, c, t, self.tables[r.request_id]) for r, c, t in new], cached=cached))

    def report(
        self,
        *,
        staged: Mapping[int, Mapping[int, Staged]] | None = None,
        stored: Mapping[str, set[int]] | None = None,
        failed_stores: Mapping[str, set[int]] | None = None,
        finished: set[str] | None = None,
        failed: set[str] | None = None,
        invalid: set[int] | None = None,
    ) -> None:
        report = WorkerReport(
            {load: dict(ranks) for load, ranks in (staged or {}).items()}, dict(stored or {}), dict(failed_stores or {})
        )
        self.side.on_report(report, finished or set(), failed or set(), invalid or set())

    def stage(self, request: Request, chunks: int | None = None, code: str = "", computed: int = 0) -> int:
        """From the first question to the workers' word. Returns the load's number."""
        assert self.ask(request, computed) == (None, False)
        (order,) = self.orders().loads
        done = len(order.keys) if chunks is None else chunks
        self.report(staged={order.load: {rank: Staged(done, code) for rank in range(self.world_size)}})
        return order.load

    def claim(self, request: Request, computed: int = 0) -> CopyOrder:
        """A hit, from the first question to the order to copy."""
        self.stage(request, computed=computed)
        tokens, is_async = self.ask(request, computed)
        assert tokens and is_async
        self.allocate(request, tokens)
        (copy,) = self.orders().copies
        return copy

    def counted(self) -> dict[str, int]:
        """Counters since the last look."""
        data = self.side.take_stats()
        return {} if data is None else data["c"]


def step(*new: tuple[Request, int, int, tuple[list[int], ...]], cached: Any = None) -> Any:
    """A SchedulerOutput."""
    cached = cached or SimpleNamespace(
        req_ids=[], resumed_req_ids=set(), new_block_ids=[], num_computed_tokens=[], tokens=[]
    )
    counts = {request.request_id: tokens for request, _, tokens, _ in new}
    counts.update(zip(cached.req_ids, cached.tokens, strict=True))
    return SimpleNamespace(
        scheduled_new_reqs=[
            SimpleNamespace(req_id=request.request_id, block_ids=table, num_computed_tokens=computed)
            for request, computed, _, table in new
        ],
        scheduled_cached_reqs=cached,
        num_scheduled_tokens=counts,
    )


def running(request: Request, computed: int, tokens: int, more: tuple[list[int], ...] | None, resumed: bool = False) -> Any:
    """A CachedRequestData with one request."""
    return SimpleNamespace(
        req_ids=[request.request_id],
        resumed_req_ids={request.request_id} if resumed else set(),
        new_block_ids=[more],
        num_computed_tokens=[computed],
        tokens=[tokens],
    )


MakeEngine = Callable[..., Engine]
