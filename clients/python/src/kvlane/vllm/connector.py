"""The class vLLM loads: `KvlaneConnector`. Thin: it hands every hook to the scheduler's or the worker's half, and keeps
vLLM alive whatever those do.

vLLM makes one object with the scheduler's role in the engine's process and one with the worker's role in each worker, and
imports the class in the API server for metrics. Nothing starts at import; a worker's sidecar starts with
`register_kv_caches`, the scheduler's when the workers' facts arrive or with the first request.

Surprising: a claimed hit must end as exactly one `finished_recving`, or its request hangs or the engine dies. So both
sides keep books of their own here: a claim without a CopyOrder becomes one that fails (`_complete`), and a worker passes
on only what it owes (guard.Owed).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorRole

from ..client import Client
from ..options import Options
from . import stats
from .carriers import (
    HMA,
    KvlaneHandshake,
    KvlaneMetadata,
    KvlaneWorkerMeta,
    SupportsHMA,
    TransferResults,
    detect,
    seed_sentence,
)
from .config import ConnectorOptions, OptionError
from .features import decide
from .guard import FAILED_LOAD, Guard, NoWorker, Owed, Transfers, WorkerLike, guarded, nothing
from .messages import CopyOrder, Orders, WorkerFacts
from .stats import Tally

if TYPE_CHECKING:
    from .scheduler_side import SchedulerSide

logger = logging.getLogger("vllm.kvlane")

FAILED_BINDS_MAX = 10
"""Hooks of a worker's half that may raise in a row while nothing is owed, before it is retired."""

ClientFactory = Callable[[Options], Client]


class KvlaneConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """kvlane as vLLM's external KV cache."""

    client_factory: ClientFactory = Client
    """Replaced by tests."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        try:
            super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        except TypeError:  # vLLM 0.11 has no third argument
            super().__init__(vllm_config=vllm_config, role=role)
        self._config = vllm_config
        self._cache_config = kv_cache_config
        self._guard = Guard(Tally(), logger)
        transfer = vllm_config.kv_transfer_config
        block_size = getattr(vllm_config.cache_config, "block_size", None)
        # The only thing that may stop the engine: a mistake in what the user wrote.
        self._options = ConnectorOptions.parse(transfer.kv_connector_extra_config, block_size=block_size)
        loads = self._options.load and transfer.kv_role != "kv_producer"
        self._features = decide(detect(vllm_config, kv_cache_config), self._options.load_mode, load=loads)
        self._rank = int(getattr(vllm_config.parallel_config, "rank", 0))
        self._world_size = int(vllm_config.parallel_config.world_size)
        self._is_worker = role == KVConnectorRole.WORKER
        self._process = f"rank{self._rank}" if self._is_worker else "scheduler"

        self._scheduler: SchedulerSide | None = None
        self._claims: dict[str, tuple[tuple[int, ...], ...]] = {}
        """Request → blocks of hits that were accepted in this step and must be ordered in it."""
        self._block_size = int(block_size or 1)
        self._local: dict[str, int] = {}
        """Request → tokens vLLM had itself when a hit was claimed."""
        self._worker: WorkerLike = NoWorker(self._rank)
        self._owed = Owed()
        self._invalid_blocks: set[int] = set()
        self._lost: set[str] = set()
        """Requests whose load was lost before it reached the worker's half."""
        self._raised = 0
        self._closed = False
        try:
            if self._is_worker:
                from .worker_side import WorkerSide

                self._worker = WorkerSide(
                    self._options, self._features, self._rank, self._world_size, type(self).client_factory
                )
            else:
                from .scheduler_side import SchedulerSide

                self._scheduler = SchedulerSide(
                    self._options, self._features, type(self).client_factory, vllm_config, kv_cache_config
                )
                self._say_what_is()
        except OptionError:
            raise
        except Exception as error:
            self._guard.caught("__init__", error)
            logger.error("kvlane is off in this process: the engine runs without it.")

    def _say_what_is(self) -> None:
        """Once, in the scheduler's process: one line per fact."""
        for sentence in (
            f"The store is {self._options.root}; store {self._options.store}, load {self._options.load}.",
            *self._features.reasons,
            seed_sentence(self._config),
            "The path through GPU memory is experimental: it has been tested on CPU tensors, a run on a GPU is not on record.",
        ):
            level = logging.WARNING if "No hit is claimed" in sentence or "random seed" in sentence else logging.INFO
            logger.log(level, "kvlane: %s", sentence)

    # --- both ------------------------------------------------------------------------------------------------------

    @property
    def requires_kv_delivery(self) -> bool:
        """A lost store is a miss later, nothing else."""
        return False

    @guarded(nothing)
    def get_kv_connector_stats(self) -> Any:
        from .prom import KvlaneStats

        side = self._worker if self._is_worker else self._scheduler
        data: dict[str, Any] | None = self._guard.tally.take()
        more = side.take_stats() if side is not None else None
        if data is None and more is None:
            return None
        merged = stats.merge(stats.merge(stats.empty(), data or {}), more or {})
        return KvlaneStats(data=stats.of_process(merged, self._process))

    @guarded(nothing)
    def shutdown(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._worker.shutdown()
        if self._scheduler is not None:
            self._scheduler.shutdown()

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> Any:
        from .prom import KvlaneStats

        return KvlaneStats(data=data) if data else KvlaneStats()

    @classmethod
    def build_prom_metrics(
        cls,
        vllm_config: Any,
        metric_types: dict[Any, Any],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> Any:
        try:
            from .prom import KvlanePromMetrics

            return KvlanePromMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        except Exception as error:
            logger.error("kvlane: no Prometheus metrics: %s: %s", type(error).__name__, error)
            return None

    # --- scheduler -------------------------------------------------------------------------------------------------

    @guarded(nothing)
    def set_xfer_handshake_metadata(self, metadata: Mapping[Any, Any]) -> None:
        facts = [each.facts for each in metadata.values() if isinstance(each, KvlaneHandshake)]
        if self._scheduler is not None and facts:
            self._scheduler.set_worker_facts(facts)

    def set_xfer_handshake_metadata_pp_aware(self, metadata: Mapping[Any, Any]) -> None:
        self.set_xfer_handshake_metadata(metadata)

    @guarded(nothing)
    def on_new_request(self, request: Any) -> None:
        if self._scheduler is not None:
            self._scheduler.on_new_request(request)

    @guarded(lambda: (0, False))
    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        if self._scheduler is None or not self._features.claims:
            return 0, False
        tokens, is_async = self._scheduler.get_num_new_matched_tokens(request, num_computed_tokens)
        if not tokens:
            return tokens, False
        self._local[request.request_id] = num_computed_tokens
        return tokens, is_async

    @guarded(nothing)
    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        block_ids: tuple[list[int], ...] = tuple(blocks.get_block_ids())
        # What is claimed is on the books before anything can raise.
        if num_external_tokens > 0:
            self._claims[request.request_id] = self._loaded(block_ids, self._local.pop(request.request_id, 0))
        if self._scheduler is not None:
            self._scheduler.update_state_after_alloc(request, block_ids, num_external_tokens)

    def _loaded(self, block_ids: tuple[list[int], ...], local_tokens: int) -> tuple[tuple[int, ...], ...]:
        """Without the blocks that vLLM had itself: those may be in use by others. With several groups block ids are not
        used to report a failure, so it does not matter there."""
        return tuple(tuple(group[local_tokens // self._block_size :]) for group in block_ids)

    def build_connector_meta(self, scheduler_output: Any) -> KvlaneMetadata:
        try:
            orders = Orders() if self._scheduler is None else self._scheduler.build_orders(scheduler_output)
        except Exception as error:
            self._guard.caught("build_connector_meta", error)
            orders = Orders()
        self._complete(orders)
        return KvlaneMetadata(orders)

    def _complete(self, orders: Orders) -> None:
        """A claim that this step has no order for would wait for ever: it is ordered to fail."""
        if not self._claims:
            return
        claims, self._claims = self._claims, {}
        ordered = {copy.request for copy in orders.copies}
        for request, blocks in claims.items():
            if request not in ordered:
                self._guard.tally.count("hook_errors", hook="lost_claim")
                self._guard.say("lost_claim", "kvlane: the order for a claimed hit was lost; it is computed instead")
                orders.copies.append(CopyOrder(FAILED_LOAD, request, 0, 0, blocks))

    @guarded(nothing)
    def update_connector_output(self, connector_output: Any) -> None:
        if self._scheduler is None:
            return
        meta = getattr(connector_output, "kv_connector_worker_meta", None)
        self._scheduler.on_report(
            meta.report if isinstance(meta, KvlaneWorkerMeta) else None,
            set(connector_output.finished_recving or ()),
            set(getattr(connector_output, "failed_recving", None) or ()),
            set(getattr(connector_output, "invalid_block_ids", None) or ()),
        )

    @guarded(lambda: (False, None))
    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        self._local.pop(request.request_id, None)
        if self._scheduler is not None:
            self._scheduler.request_finished(request)
        return False, None

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, block_ids)

    @guarded(lambda: False)
    def has_pending_push_work(self) -> bool:
        """True for a bounded time only: while ranks wait for the word that the others have stored a chunk."""
        return self._scheduler is not None and self._scheduler.has_pending_work()

    @guarded(lambda: False)
    def reset_cache(self) -> bool | None:
        return True if self._scheduler is None else self._scheduler.reset_cache()

    # --- worker ----------------------------------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        register = getattr(self._worker, "register", None)
        if register is None:
            return
        try:
            register(kv_caches, self._cache_config)
        except OptionError:
            raise
        except Exception as error:
            self._retire("register_kv_caches", error)

    @guarded(nothing)
    def get_handshake_metadata(self) -> KvlaneHandshake | None:
        facts: WorkerFacts | None = self._worker.facts() if self._is_worker else None
        return None if facts is None else KvlaneHandshake(facts)

    def handle_preemptions(self, *_: object) -> None:
        """A set of ids or the metadata, by version. Nothing to do: stores leave their blocks within the step."""

    def bind_connector_metadata(self, connector_metadata: Any) -> None:
        super().bind_connector_metadata(connector_metadata)
        if not isinstance(connector_metadata, KvlaneMetadata):
            return
        orders = connector_metadata.orders
        self._owed.add(orders.copies)
        lost = [copy.request for copy in orders.copies if copy.load == FAILED_LOAD]
        if lost:
            self._lost.update(lost)
            orders.copies = [copy for copy in orders.copies if copy.load != FAILED_LOAD]
        self._ask("bind_connector_metadata", lambda: self._worker.bind(orders))

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        self._ask("start_load_kv", lambda: self._worker.start_loads())

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Loads are whole requests, before they are scheduled."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Stores are whole chunks, in wait_for_save."""

    @guarded(nothing)
    def wait_for_save(self) -> None:
        self._worker.save()

    def get_transfer_results(self, finished_req_ids: set[str]) -> Any:
        said = self._poll()
        return TransferResults(finished_recving=said.finished_recving, failed_recving=said.failed_recving)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        return None, self._poll().finished_recving or None

    @guarded(lambda: Transfers(set(), set(), set()))
    def _poll(self) -> Transfers:
        """What is passed on is what is owed: nothing twice, nothing that vLLM does not wait for."""
        polled: list[Transfers] = []
        self._ask("get_finished", lambda: polled.append(Transfers(*self._worker.poll())))
        if self._owed.overdue():
            self._retire("get_finished", TimeoutError("a copy that was ordered was not settled in time"))
        said, strange = self._owed.settle(polled[0] if polled else Transfers(set(), set(), set()))
        if strange:
            self._guard.tally.count("hook_errors", len(strange), hook="not_owed")
            self._guard.say("not_owed", "kvlane: %d finished loads that were not owed are not passed on", len(strange))
        mine = self._owed.fail() if isinstance(self._worker, NoWorker) else self._owed.fail(self._lost)
        self._lost.clear()
        failed = said.failed_recving | mine.failed_recving
        if self._features.failure_backend == "block_ids":
            self._invalid_blocks |= said.invalid_block_ids | mine.invalid_block_ids
        return Transfers(said.finished_recving | mine.finished_recving, failed, set())

    @guarded(set)
    def get_block_ids_with_load_errors(self) -> set[int]:
        blocks, self._invalid_blocks = self._invalid_blocks, set()
        return blocks

    @guarded(nothing)
    def build_connector_worker_meta(self) -> KvlaneWorkerMeta | None:
        report = self._worker.report()
        return KvlaneWorkerMeta(report) if report else None

    def _ask(self, hook: str, call: Callable[[], object]) -> None:
        """The worker's half, in hooks whose loss could leave a load half known."""
        try:
            call()
        except Exception as error:
            self._raised += 1
            if len(self._owed) > 0 or self._raised >= FAILED_BINDS_MAX:
                self._retire(hook, error)
            else:
                self._guard.caught(hook, error)
        else:
            if hook == "get_finished":
                self._raised = 0

    def _retire(self, hook: str, error: Exception) -> None:
        """What it may still do to blocks cannot be known: it is stopped, and then nothing is left that could."""
        self._guard.caught(hook, error)
        logger.error("kvlane is off in this worker until the engine is restarted; the engine goes on without it.")
        former, self._worker = self._worker, NoWorker(self._rank)
        try:
            former.shutdown()
            _wait_for_device()
        except Exception as late:
            self._guard.caught("shutdown", late)


def _wait_for_device() -> None:
    """Copies within memory that are under way: at most a few, and no storage is behind them."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


if HMA:
    SupportsHMA.register(KvlaneConnector)

_registry: Mapping[str, Any] = getattr(KVConnectorFactory, "_registry", {})
if "KvlaneConnector" not in _registry:
    try:
        # MultiConnector finds the class of a child's numbers by this name only.
        KVConnectorFactory.register_connector("KvlaneConnector", __name__, "KvlaneConnector")
    except ValueError:
        logger.debug("KvlaneConnector is registered already")
