"""The scheduler's half of the connector: what is claimed, loaded and stored.

    on_new_request → look-up starts
    get_num_new_matched_tokens    None until the look-up is answered; staged: the chunks are ordered into the workers'
                                  slots, None until all ranks have said how far they came; then (n, True) or (0, False)
    update_state_after_alloc      the destination is known: staged chunks are ordered to be copied
    build_orders                  everything that is new, and what the step's tokens make ready to be stored
    on_report                     what the workers say

Surprising: vLLM asks again and again, also after an answer that it could not use, with another local hit each time. So
nothing is decided by being asked: what is staged is held until it is claimed, given up or late, and the same question gets
the same answer. A request whose load failed once is never promised anything again, or it would fail for ever.

Nothing here blocks, but reset_cache for its budget.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._clock import now_us as monotonic_us
from .agreement import Agreement
from .claims import Claims
from .commits import Commits
from .config import ConnectorOptions
from .features import Features
from .fingerprint import hash_seed, identify, no_identity
from .geometry import Geometry, read_geometry, with_chunks
from .known_keys import KnownKeys
from .link import ClientFactory, Link
from .loads import Loads
from .lookups import Lookups
from .messages import Orders, WorkerFacts, WorkerReport
from .requests import RequestLike, Requests, read_step
from .stats import Tally
from .store_plan import StorePlan
from .worth import Worth

if TYPE_CHECKING:
    from .fingerprint import Identity

logger = logging.getLogger("vllm.kvlane")

SLOT_BYTES = 4096
SLOTS = 2
"""Of the look-ups' own client: it moves no blocks."""
HASHES = "vllm.v1.core.kv_cache_utils"


class SchedulerSide:
    def __init__(
        self,
        options: ConnectorOptions,
        features: Features,
        client_factory: ClientFactory,
        vllm_config: Any,
        kv_cache_config: Any,
        *,
        say: Callable[[str], None] = lambda sentence: logger.warning("kvlane: %s", sentence),
        now_us: Callable[[], int] = monotonic_us,
    ) -> None:
        self._options, self._features = options, features
        self._vllm_config, self._kv_cache_config = vllm_config, kv_cache_config
        self._say, self._now_us = say, now_us
        self._tally = Tally()
        role = getattr(vllm_config.kv_transfer_config, "kv_role", "kv_both")
        self._store_wanted = options.store and role != "kv_consumer"
        self._load_wanted = options.load and features.claims and role != "kv_producer"
        self.refusal = ""
        """Why nothing is loaded or stored."""
        self._facts: tuple[WorkerFacts, ...] = ()
        self._client = client_factory(options.to_client_options("scheduler", SLOTS, SLOT_BYTES))
        self._link = Link(self._client, self._tally)
        self._known = KnownKeys(now_us)
        self._worth = Worth(options, now_us)
        self._lookups = Lookups(self._client, self._known, options.lookup_budget_ms, self._tally, now_us)
        self._agreement = Agreement(self._client, self._identify, say, now_us)
        self._make_plans(read_geometry(options, vllm_config, kv_cache_config))
        unnamed = no_identity(vllm_config)
        if unnamed:
            self._turn_off(unnamed)

    def _make_plans(self, geometry: Geometry) -> None:
        """What depends on the size of a chunk. Again when the workers have told theirs, which is before any request."""
        options, features, now_us = self._options, self._features, self._now_us
        self.geometry = geometry
        if geometry.trouble:
            self._turn_off(geometry.trouble)
        self._requests = Requests(geometry.hashes_per_chunk)
        self._loads = Loads(geometry.world_size, now_us)
        self._commits = Commits(geometry.world_size, features.worker_meta, options.store_timeout_ms, self._known, now_us)
        self._plan = StorePlan(geometry, self._known, self._commits)
        self._claims = Claims(
            options, features, geometry, self._link, self._agreement, self._lookups, self._known, self._loads,
            self._worth, self._tally, now_us,
        )  # fmt: skip

    # --- at start ----------------------------------------------------------------------------------------------------

    def set_worker_facts(self, facts: Sequence[WorkerFacts]) -> None:
        """Once, from all workers."""
        self._facts = tuple(facts)
        if not self._is_known():  # it comes once, so the others never will
            self._turn_off(
                f"{len({each.rank for each in facts})} of {self.geometry.world_size} workers have said what they are; this "
                "vLLM does not pass on what the workers say with this kind of parallelism"
            )
            return
        told = {each.blocks_per_chunk for each in facts} - {0}
        if len(told) > 1:
            self._turn_off(
                f"workers have chunks of {' and '.join(map(str, sorted(told)))} blocks; set the option chunk_tokens, so that "
                "all have the same"
            )
            return
        if told and not self.refusal:
            self._make_plans(with_chunks(self.geometry, told.pop()))
        if facts:
            self._loads.slots = min(each.load_slots for each in facts)
            self._claims.chunk_bytes = max(each.chunk_bytes for each in facts)
            self._agreement.poll()

    def _is_known(self) -> bool:
        """Whether all workers that can say what they are have said it. One that cannot serve says nothing."""
        return not self._features.handshake or len({each.rank for each in self._facts}) >= self.geometry.world_size

    def _identify(self) -> Identity | None:
        if not self._is_known():
            return None
        algorithm = str(getattr(self._vllm_config.cache_config, "prefix_caching_hash_algo", "builtin"))
        # Looked up, not imported: in the engine it is there, and this module must not need vLLM.
        seed = hash_seed(sys.modules.get(HASHES), algorithm, os.environ)
        return identify(self._options, self.geometry, self._vllm_config, self._kv_cache_config, self._facts, seed)

    # --- hooks -------------------------------------------------------------------------------------------------------

    def on_new_request(self, request: RequestLike) -> None:
        self._forget_request(request.request_id)  # an id that is used again is another request
        if self._is_off():
            return
        self._agreement.poll()
        tracked = self._requests.track(request)
        if self._load_wanted:
            self._claims.begin(tracked)

    def get_num_new_matched_tokens(self, request: RequestLike, computed: int) -> tuple[int | None, bool]:
        if self._is_off() or not self._load_wanted:
            return 0, False
        self._agreement.poll()
        return self._claims.ask(self._requests.track(request), computed)

    def update_state_after_alloc(self, request: RequestLike, block_ids: tuple[list[int], ...], num_external: int) -> None:
        if self._is_off():
            return
        tracked = self._requests.track(request)
        tracked.allocated(block_ids)
        self._claims.allocated(tracked, num_external)

    def build_orders(self, scheduler_output: Any) -> Orders:
        orders = Orders()
        if self._is_off():
            return orders
        self._client.poll()  # nothing is read from it, but it keeps settled tasks until they are fetched
        self._agreement.poll()
        self._lookups.poll()
        step = read_step(scheduler_output, self._requests.get)
        if step.tokens:
            self._worth.step_built(step.prefill_tokens)
        orders.namespace = self._agreement.key_namespace
        if orders.namespace is not None and self._store_wanted:
            found = [self._requests.get(each.request_id) for each in step.scheduled]
            orders.stores = self._plan.orders(step, found)
        self._loads.take(orders)
        self._commits.take(orders)
        return orders

    def on_report(
        self,
        report: WorkerReport | None,
        finished_recving: set[str],
        failed_recving: set[str],
        invalid_block_ids: set[int],
    ) -> None:
        self._worth.step_reported()
        if report is not None:
            self._loads.on_staged(report.staged)
            self._commits.on_report(report.stored, report.failed_stores)
            for size_bytes, seconds in report.loads_timed:
                self._worth.load_took(size_bytes, seconds)
        for load in self._loads.copying():
            bad = load.first_of(invalid_block_ids)
            if load.request_id in failed_recving or bad is not None:
                self._claims.failed(load, self._requests.get(load.request_id), bad or 0)
            if load.request_id in finished_recving:
                self._loads.finished(load)
                tracked = self._requests.get(load.request_id)
                if tracked is not None and tracked.load is load:
                    tracked.load = None

    def request_finished(self, request: RequestLike) -> None:
        """A load that is being copied goes on: the worker reports it, and the blocks are freed then."""
        self._forget_request(request.request_id)

    def has_pending_work(self) -> bool:
        return self._commits.pending

    def reset_cache(self) -> bool:
        """Everything stored before is out of reach at once. True: the store knows it too."""
        if self._is_off() or not (self._store_wanted or self._load_wanted):
            return True
        for load in self._loads.staging():
            self._loads.drop(load)
        for tracked in self._requests.all():
            tracked.outdated()
        self._known.clear()
        self._lookups.forget_all()
        self._commits.forget_all()
        return self._agreement.reset(self._options.lookup_budget_ms)

    def take_stats(self) -> dict[str, Any] | None:
        self._link.gauges()
        return self._tally.take()

    def shutdown(self) -> None:
        self._client.close()

    # --- within ------------------------------------------------------------------------------------------------------

    def refusal_now(self) -> str | None:
        """Why no look-up makes sense just now, in a code of the protocol."""
        return self._link.refusal("metadata")

    def _turn_off(self, why: str) -> None:
        self.refusal = f"nothing is loaded or stored: {why}"
        self._say(self.refusal)

    def _is_off(self) -> bool:
        return bool(self.refusal or self._agreement.refusal)

    def _forget_request(self, request_id: str) -> None:
        tracked = self._requests.pop(request_id)
        if tracked is not None and tracked.load is not None:
            self._loads.drop(tracked.load)
