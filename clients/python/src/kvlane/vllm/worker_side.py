"""The worker's half of the connector: what the scheduler orders is done here, one engine step at a time.

    bind → start_loads → (forward) → save → poll → report        each step, all from the worker's own thread

Surprising: the hooks are not trusted to come. vLLM skips `save` in steps without a forward and has moved `start_loads`
behind the forward; whatever a step's orders are, they have been taken up by the time of `poll`. Nothing here blocks but a
copy within memory, and nothing raises: a layout or an option that cannot be served leaves a worker that refuses everything,
and says why in `refused`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..client import Client
from ..errors import KvlaneError
from ..results import BlocksResult
from .chunking import block_facts
from .config import ConnectorOptions, OptionError
from .features import Features
from .guard import Transfers
from .link import ClientFactory, Link
from .messages import CopyOrder, Orders, Staged, StoreOrder, WorkerFacts, WorkerReport
from .pieces import Piece
from .staging import Staging
from .stats import Tally
from .stores import Stores, Writing
from .transfers import Copier

SLOT_ALIGN_BYTES = 4096


class Opened(NamedTuple):
    """KV memory that can be copied, as `layout` found it."""

    copier: Copier
    digest: str


OpenMemory = Callable[[Mapping[str, Any], Any, int], Opened]
"""(kv_caches, kv_cache_config, blocks per chunk) → what can be copied. Raises ValueError with the sentence why not."""


def open_torch_memory(kv_caches: Mapping[str, Any], kv_cache_config: Any, blocks_per_chunk: int) -> Opened:
    from .copier import open_memory  # torch: not before a worker has tensors

    return open_memory(kv_caches, kv_cache_config, blocks_per_chunk)


class WorkerSide:
    def __init__(
        self, options: ConnectorOptions, features: Features, rank: int, world_size: int,
        client_factory: ClientFactory = Client, *, open_memory: OpenMemory = open_torch_memory,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.tally = Tally()
        self.refused: str | None = "register_kv_caches has not been called"
        self.link: Link | None = None
        self._options, self._features = options, features
        self._rank, self._world_size = rank, world_size
        self._client_factory, self._open_memory, self._now = client_factory, open_memory, now
        self._facts: WorkerFacts | None = None
        self._parts: tuple[Link, Copier, Staging, Stores] | None = None
        self._orders = Orders()
        self._begun = self._saved = True
        self._report = WorkerReport()
        self._unserved: list[CopyOrder] = []

    # --- start and end ---------------------------------------------------------------------------------------------

    def register(self, kv_caches: Mapping[str, Any], kv_cache_config: Any) -> None:
        """Looks at the KV tensors and spawns the sidecar, without waiting for it. Raises OptionError, nothing else."""
        try:
            block_tokens, block_bytes = block_facts(kv_cache_config)
            per_chunk = self._options.blocks_per_chunk(block_tokens, block_bytes)
            copier, digest = self._open_memory(kv_caches, kv_cache_config, per_chunk)
            slot_bytes = -(-copier.chunk_bytes // SLOT_ALIGN_BYTES) * SLOT_ALIGN_BYTES
            client_options = self._options.to_client_options("worker", self._options.slots(slot_bytes), slot_bytes)
            client = self._client_factory(client_options)
        except OptionError:  # what the user wrote cannot work: better now than as a cache that never hits
            raise
        except (ValueError, KvlaneError, OSError) as error:  # LayoutRefused is a ValueError
            self.refused = str(error)
            return
        copier.attach(client)
        link = Link(client, self.tally)
        given = client.options
        load_slots = max(1, given.slots - int(given.slots * given.budgets.others_max))
        staging = Staging(
            link, copier, self.tally, rank=self._rank, window=load_slots, now=self._now, key_name=self._key_name,
            failures=self._features.failure_backend,
        )  # fmt: skip
        stores = Stores(
            link, copier, self.tally, rank=self._rank, now=self._now, key_name=self._key_name,
            hold=self._rank == 0 and self._world_size > 1 and self._features.worker_meta,
            timeout_ms=self._options.store_timeout_ms,
        )  # fmt: skip
        self.link, self._parts, self.refused = link, (link, copier, staging, stores), None
        self._facts = WorkerFacts(self._rank, self._world_size, digest, copier.chunk_bytes, load_slots, per_chunk)

    def facts(self) -> WorkerFacts | None:
        """None: nothing can be stored or loaded; `refused` says why."""
        return self._facts

    def shutdown(self) -> None:
        """Bounded by the client's close_timeout_ms; what is in flight is not waited for."""
        if self._parts is None:
            return
        link, copier, staging, stores = self._parts
        self._parts, self.refused = None, "the connector was shut down"
        staging.close()
        stores.close()
        copier.close()
        link.client.close()

    def _key_name(self, key: str) -> str:
        return f"{key}{self._rank:04x}"

    # --- each step ---------------------------------------------------------------------------------------------------

    def bind(self, orders: Orders) -> None:
        self._take_up()
        if not self._saved and self._orders.stores:
            self._drop(self._orders.stores, "no_forward")
        self._orders, self._begun, self._saved = orders, False, False
        if self._parts is not None:
            self._parts[2].cancel(orders.cancels)

    def start_loads(self) -> None:
        self._take_up()

    def save(self) -> None:
        """After the forward was launched, before anything that writes the step's blocks again is."""
        if self._saved:
            return
        self._saved = True
        if not self._orders.stores:
            return
        if self._parts is None or not self._options.store:
            self._drop(self._orders.stores, "refused")
        else:
            self._parts[3].save(self._orders)

    def poll(self) -> Transfers:
        self._take_up()
        taken = Transfers(set(), set(), set())
        if self._parts is not None:
            link, copier, staging, stores = self._parts
            for task in link.client.poll():
                if isinstance(task.result, BlocksResult):
                    if isinstance(task.tag, Piece):
                        staging.settled(task.tag, task.result)
                    elif isinstance(task.tag, Writing):
                        stores.settled(task.tag, task.result)
            staging.step()
            stores.step()
            copier.look(link.life, staging.lives() | stores.lives())
            link.gauges()
            taken = Transfers(*staging.outcomes.take())
            self._report.merge(staging.outcomes.take_report()).merge(stores.take_report())
        for copy in self._unserved:
            taken.finished_recving.add(copy.request)
            if self._features.failure_backend == "failed_recving":
                taken.failed_recving.add(copy.request)
            elif self._features.failure_backend == "block_ids" and len(copy.blocks) == 1:
                taken.invalid_block_ids.update(block for block in copy.blocks[0] if block > 0)
        self._unserved = []
        if not self._features.worker_meta:
            self._report = WorkerReport()  # nobody will ask
        return taken

    def report(self) -> WorkerReport | None:
        report, self._report = self._report, WorkerReport()
        return report or None

    def take_stats(self) -> dict[str, Any] | None:
        return self.tally.take()

    def _take_up(self) -> None:
        if self._begun:
            return
        self._begun = True
        orders = self._orders
        if self._parts is not None:
            self._parts[2].begin(orders)
            self._parts[3].decide(orders)
            return
        for load in orders.loads:
            self._report.staged[load.load] = {self._rank: Staged(0, "SIDECAR_GONE")}
        self._unserved.extend(orders.copies)
        for key in orders.commits:
            self._report.failed_stores.setdefault(key, set()).add(self._rank)

    def _drop(self, stores: Sequence[StoreOrder], reason: str) -> None:
        self.tally.count("dropped_stores", len(stores), reason=reason)
        for store in stores:
            self._report.failed_stores.setdefault(store.key, set()).add(self._rank)
