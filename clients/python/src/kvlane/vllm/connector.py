"""The class vLLM loads: `KvlaneConnector`. Thin: it hands every hook to the scheduler's or the worker's half, and keeps
vLLM alive whatever those do.

vLLM makes one object with the scheduler's role in the engine's process and one with the worker's role in each worker, and
imports the class in the API server for metrics. Nothing starts at import; a worker's sidecar starts with
`register_kv_caches`, the scheduler's when the workers' facts arrive or with the first request.

Surprising: a claimed hit must end as exactly one `finished_recving`, or its request hangs or the engine dies. So both
sides keep books of their own, beside the halves: `warden.py`.
"""

from __future__ import annotations

import logging
import time
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
from .guard import Guard, NoWorker, Transfers, WorkerLike, guarded, nothing
from .messages import Orders
from .stats import Tally
from .warden import Promises, Warden

if TYPE_CHECKING:
    from .scheduler_side import SchedulerSide

logger = logging.getLogger("vllm.kvlane")

PENDING_MAX_S = 2.0
"""A healthy mount needs a fraction of it; a server must stop within five seconds during a hang."""

ClientFactory = Callable[[Options], Client]

PATIENCE_S = 2.0
"""Beyond look-up and load: so long a request may be told to ask again, whatever the scheduler's half says."""


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
        load_ms = self._options.timeout_ms or self._options.deadline_ceiling_ms
        patience_s = (self._options.lookup_budget_ms + load_ms) / 1000 + PATIENCE_S
        ways = int(getattr(vllm_config.parallel_config, "decode_context_parallel_size", 1) or 1)
        self._promises = Promises(
            self._guard, int(block_size or 1) * ways, patience_s, holds_aborted=self._features.holds_aborted
        )
        worker: WorkerLike = NoWorker(self._rank)
        self._invalid_blocks: set[int] = set()
        self._last_stores_s = float("-inf")
        self._closed = False
        try:
            if self._is_worker:
                from .worker_side import WorkerSide

                worker = WorkerSide(self._options, self._features, self._rank, self._world_size, type(self).client_factory)
            else:
                from .scheduler_side import SchedulerSide

                self._scheduler = SchedulerSide(
                    self._options, self._features, type(self).client_factory, vllm_config, kv_cache_config, say=_warn
                )
                self._say_what_is()
        except OptionError:
            raise
        except Exception as error:
            self._guard.caught("__init__", error)
            logger.error("kvlane is off in this process: the engine runs without it.")
        self._warden = Warden(
            worker, self._guard, self._rank, wait_for_device=_wait_for_device, longest_load_s=load_ms / 1000
        )

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

        more = self._warden.take_stats() if self._scheduler is None else self._scheduler.take_stats()
        data = self._guard.tally.take()
        if data is None and more is None:
            return None
        merged = stats.merge(stats.merge(stats.empty(), data or {}), more or {})
        return KvlaneStats(data=stats.of_process(merged, self._process))

    @guarded(nothing)
    def shutdown(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._warden.shutdown()
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
        if self._scheduler is None:
            return
        told = [each for each in metadata.values() if isinstance(each, KvlaneHandshake)]
        refused = [each.refused for each in told if each.facts is None]
        if refused:
            logger.error("kvlane is off in this engine, because a worker cannot take part: %s", refused[0])
            self._scheduler.shutdown()
            self._scheduler = None
        elif told:
            self._scheduler.set_worker_facts([each.facts for each in told if each.facts is not None])
        elif metadata:
            logger.error(
                "kvlane is off in this engine: what its workers have to say did not arrive, but another connector's word did. "
                "MultiConnector passes on one child's handshake only."
            )
            self._scheduler.shutdown()
            self._scheduler = None

    def set_xfer_handshake_metadata_pp_aware(self, metadata: Mapping[Any, Any]) -> None:
        self.set_xfer_handshake_metadata(metadata)

    @guarded(nothing)
    def on_new_request(self, request: Any) -> None:
        self._promises.forget(request.request_id)
        if self._scheduler is not None:
            self._scheduler.on_new_request(request)

    @guarded(lambda: (0, False))
    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        if self._scheduler is None or not self._features.claims:
            return 0, False
        if not self._promises.allows(request.request_id, getattr(request, "num_preemptions", 0)):
            return 0, False
        tokens, is_async = self._scheduler.get_num_new_matched_tokens(request, num_computed_tokens)
        if tokens is None and not self._promises.may_wait(request.request_id):
            return 0, False
        self._promises.answered(request.request_id, tokens, num_computed_tokens)
        return tokens, bool(tokens) and is_async

    @guarded(nothing)
    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        block_ids: tuple[list[int], ...] = tuple(blocks.get_block_ids())
        self._promises.allocated(request.request_id, num_external_tokens, block_ids)
        if self._scheduler is not None:
            self._scheduler.update_state_after_alloc(request, block_ids, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KvlaneMetadata:
        try:
            orders = Orders() if self._scheduler is None else self._scheduler.build_orders(scheduler_output)
        except Exception as error:
            self._guard.caught("build_connector_meta", error)
            orders = Orders()
        self._promises.complete(orders)
        if orders.stores:
            self._last_stores_s = time.monotonic()
        return KvlaneMetadata(orders)

    @guarded(nothing)
    def update_connector_output(self, connector_output: Any) -> None:
        finished = set(connector_output.finished_recving or ())
        if unwanted := self._promises.reported(finished):
            connector_output.finished_recving = finished - unwanted  # vLLM reads it after us
        if self._scheduler is None:
            return
        meta = getattr(connector_output, "kv_connector_worker_meta", None)
        self._scheduler.on_report(
            meta.report if isinstance(meta, KvlaneWorkerMeta) else None,
            finished,
            set(getattr(connector_output, "failed_recving", None) or ()),
            set(getattr(connector_output, "invalid_block_ids", None) or ()),
        )

    @guarded(lambda: (False, None))
    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        self._promises.forget(request.request_id)
        if self._scheduler is not None:
            self._scheduler.request_finished(request)
        return False, None

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, block_ids)

    @guarded(lambda: False)
    def has_pending_push_work(self) -> bool:
        """Whether the engine shall go on stepping without requests: while ranks wait for the word that the others have
        stored a chunk. Only so long after the last order, because an engine does not stop while this is True."""
        if self._scheduler is None or time.monotonic() - self._last_stores_s > PENDING_MAX_S:
            return False
        return self._scheduler.has_pending_work()

    @guarded(lambda: False)
    def reset_cache(self) -> bool | None:
        return True if self._scheduler is None else self._scheduler.reset_cache()

    # --- worker ----------------------------------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        if not self._is_worker or self._warden.retired:
            return
        try:
            self._worker_half().register(kv_caches, self._cache_config)
        except OptionError:
            raise
        except Exception as error:
            self._warden.retire("register_kv_caches", error)
        if self._refused():
            logger.error("kvlane is off in worker %d: %s", self._rank, self._refused())

    def _worker_half(self) -> Any:
        return self._warden.worker

    def _refused(self) -> str | None:
        """Why this worker serves nothing."""
        if self._warden.retired:
            return "its worker's half could not be made; the reason is in the log"
        refused: str | None = self._worker_half().refused
        return refused

    @guarded(nothing)
    def get_handshake_metadata(self) -> KvlaneHandshake | None:
        if not self._is_worker:
            return None
        return KvlaneHandshake(self._worker_half().facts(), self._refused())

    def handle_preemptions(self, *_: object) -> None:
        """A set of ids or the metadata, by version. Nothing to do: stores leave their blocks within the step."""

    def bind_connector_metadata(self, connector_metadata: Any) -> None:
        super().bind_connector_metadata(connector_metadata)
        if isinstance(connector_metadata, KvlaneMetadata):
            self._warden.bind(connector_metadata.orders)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        self._warden.start_loads()

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Loads are whole requests, before they are scheduled."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Stores are whole chunks, in wait_for_save."""

    def wait_for_save(self) -> None:
        self._warden.save()

    def get_transfer_results(self, finished_req_ids: set[str]) -> Any:
        said = self._poll()
        return TransferResults(finished_recving=said.finished_recving, failed_recving=said.failed_recving)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        return None, self._poll().finished_recving or None

    def _poll(self) -> Transfers:
        said = self._warden.poll()
        if self._features.failure_backend == "block_ids":
            self._invalid_blocks |= said.invalid_block_ids
        return said

    def get_block_ids_with_load_errors(self) -> set[int]:
        blocks, self._invalid_blocks = self._invalid_blocks, set()
        return blocks

    @guarded(nothing)
    def build_connector_worker_meta(self) -> KvlaneWorkerMeta | None:
        report = self._warden.report()
        return KvlaneWorkerMeta(report) if report else None


def _warn(sentence: str) -> None:
    logger.warning("kvlane: %s", sentence)


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
