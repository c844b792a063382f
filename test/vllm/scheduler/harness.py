"""vLLM's real scheduler and our connector's two roles in one process; only the computation is made up (model.py).

    with Engine(Setup(root=...)) as engine:
        engine.add("a", prompt, max_tokens=4)
        engine.finish("a")                          # steps until it is done; bounded
        assert engine.output["a"] == expected(prompt, 4)

A step is what EngineCore and the V1 model runner do, in their order; what crosses processes there is pickled here. With
scheduling "async" two steps are planned ahead, and a worker executes a step only when the scheduler asks for its result:
everything the scheduler decides meanwhile meets a worker that is one step behind.

Nothing here sleeps to wait, but for the engine's own pause of 1 ms in steps that had nothing to compute.
"""

from __future__ import annotations

import inspect
import pickle
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_block_hash, get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from configs import Setup, kv_cache_config, vllm_config
from inspect_connector import clients_of, slots_taken, stats_total
from model import WrongKV
from worker import Worker

LIMIT_S = 20.0
"""Of everything that is waited for: many times what it takes on a busy machine."""
KEEPS_REPORTS = "delay_free_blocks" not in inspect.signature(Scheduler._free_request).parameters
"""vLLM before 0.16."""
SHUTDOWN_S = 2.0
"""Of one connector object; vLLM gives a worker 5 s."""


class Engine:
    """As EngineCore: builds everything in its order, steps, and in the end proves that nothing is left behind."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        config, cache = vllm_config(setup), kv_cache_config(setup)
        self.workers = [Worker(setup, config, cache, rank) for rank in range(setup.world)]
        scheduler = AsyncScheduler if setup.scheduling == "async" else Scheduler
        self.scheduler = scheduler(
            config, cache, StructuredOutputManager(config), block_size=setup.block_size, log_stats=True
        )
        self.connector = self.scheduler.connector
        self.aggregator = KVOutputAggregator.from_connector(self.connector, setup.world)
        told = {(0, worker.rank): worker.connector.get_handshake_metadata() for worker in self.workers}
        if known := {key: pickle.loads(pickle.dumps(facts)) for key, facts in told.items() if facts is not None}:
            self.connector.set_xfer_handshake_metadata_pp_aware(known)
        hash_function = get_hash_fn_by_name(setup.hash_algo)
        init_none_hash(hash_function)
        self.hasher = get_request_block_hasher(setup.block_size, hash_function)
        self.in_flight: deque[Any] = deque()
        self.ahead = 2 if setup.scheduling == "async" else 1
        self.steps, self.executed = 0, 0
        self.requests: dict[str, Request] = {}
        self.output: dict[str, list[int]] = {}
        self.reason: dict[str, str] = {}
        self.answers: dict[str, list[tuple[int | None, bool]]] = {}
        """What the connector answered each time it was asked for a request's hit."""
        self.stats: list[dict[str, Any]] = []
        self.before_update: Callable[[], None] = lambda: None
        """Between a step's execution and its result: where EngineCore takes up aborts."""
        self.errors_expected = False
        """The connector's hooks catch what is raised inside; here that is a failure all the same, unless a test breaks them."""
        self.reports_kept: set[str] = set()
        """Requests that were aborted after vLLM had heard that they are loaded, where it keeps that for ever."""
        self._hashed: dict[bytes, list[int]] = {}
        self._listen()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.assert_nothing_left()
        finally:
            self.shutdown()

    def _listen(self) -> None:
        ask = self.connector.get_num_new_matched_tokens

        def asked(request: Request, computed: int) -> tuple[int | None, bool]:
            answer = ask(request, computed)
            self.answers.setdefault(request.request_id, []).append(answer)
            return answer

        self.connector.get_num_new_matched_tokens = asked

    # --- requests --------------------------------------------------------------------------------------------------

    def add(
        self, name: str, prompt: Sequence[int], max_tokens: int = 3, *, skip_cache: bool = False, **fields: Any
    ) -> Request:
        sampling = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, detokenize=False)
        sampling.skip_reading_prefix_cache = skip_cache
        if "eos_token_id" in inspect.signature(Request).parameters:  # 0.13
            fields["eos_token_id"] = None
        request = Request(name, list(prompt), sampling, None, block_hasher=self.hasher, **fields)
        self.requests[name], self.output[name] = request, []
        self.answers.pop(name, None)
        self.reason.pop(name, None)
        self.scheduler.add_request(request)
        return request

    def abort(self, *names: str) -> None:
        self.scheduler.finish_requests(names, RequestStatus.FINISHED_ABORTED)
        for name in names:
            self.reason[name] = "abort"
            self.reports_kept |= {name} & (self.scheduler.finished_recving_kv_req_ids if KEEPS_REPORTS else set())

    def loading(self, name: str) -> bool:
        return self.requests[name].status == RequestStatus.WAITING_FOR_REMOTE_KVS

    def claimed(self, name: str) -> int:
        """Tokens that were claimed by the last positive answer; 0: never any."""
        return next((tokens for tokens, _ in reversed(self.answers.get(name, [])) if tokens), 0)

    def answered(self, name: str) -> bool:
        """The last answer was a count, not "ask again"."""
        return bool(self.answers.get(name)) and self.answers[name][-1][0] is not None

    # --- steps -----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One turn of the engine's loop. Also without work: the way a later request would turn it."""
        planned = 0
        if len(self.in_flight) < self.ahead:
            scheduled = self.scheduler.schedule()
            scheduled.kv_connector_metadata = pickle.dumps(scheduled.kv_connector_metadata)
            planned = scheduled.total_num_scheduled_tokens
            self.in_flight.append(scheduled)
            self.steps += 1
            assert not any(getattr(scheduled, never, None) for never in ("kv_cache_block_copies", "has_sync_kv_loads"))
        if len(self.in_flight) == self.ahead or not (planned or self.scheduler.has_requests()):
            self._take_result()
        if not planned:
            time.sleep(0.001)

    def _take_result(self) -> None:
        scheduled = self.in_flight.popleft()
        packed = scheduled.kv_connector_metadata
        results = []
        for worker in self.workers:
            scheduled.kv_connector_metadata = pickle.loads(packed)
            results.append(worker.execute(scheduled))
        result = results[0] if len(results) == 1 else self.aggregator.aggregate(results)
        self.executed += scheduled.total_num_scheduled_tokens > 0
        self.before_update()
        for outputs in self.scheduler.update_from_output(scheduled, result).values():
            for each in outputs.outputs:
                self.output[each.request_id] += each.new_token_ids
                if each.finish_reason is not None:
                    self.reason[each.request_id] = str(each.finish_reason)
            if outputs.scheduler_stats is not None and outputs.scheduler_stats.kv_connector_stats:
                self.stats.append(outputs.scheduler_stats.kv_connector_stats)

    def run_until(self, condition: Callable[[], object], limit_s: float = LIMIT_S, what: str = "") -> None:
        """Steps until it is so."""
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, (
                f"not within {limit_s} s, {self.steps} steps: {what or condition}; {self.status()}"
            )
            self.step()

    def finish(self, *names: str, limit_s: float = LIMIT_S) -> None:
        self.run_until(lambda: all(name in self.reason for name in names), limit_s, f"the end of {names}")

    def status(self) -> str:
        return ", ".join(
            f"{name}: {request.status.name} {self.answers.get(name, [])[-3:]}" for name, request in self.requests.items()
        )

    def forget_local(self) -> None:
        """Empties vLLM's own prefix cache, so that only what is stored can be hit."""
        self.run_until(lambda: not self.scheduler.requests and not self.in_flight_work(), what="quiet")
        self.remember_blocks()
        assert self.scheduler.reset_prefix_cache()

    def in_flight_work(self) -> bool:
        while self.in_flight:
            self._take_result()
        return self.scheduler.has_requests()

    # --- the end ---------------------------------------------------------------------------------------------------

    def remember_blocks(self) -> None:
        """Whatever vLLM's prefix cache offers now is right on every rank."""
        for request in self.requests.values():
            for index, digest in enumerate(request.block_hashes):
                self._hashed[bytes(digest)] = list(request.all_token_ids[: (index + 1) * self.setup.block_size])
        for block in self.scheduler.kv_cache_manager.block_pool.blocks:
            if block.block_hash is not None:
                tokens = self._hashed[bytes(get_block_hash(block.block_hash))]
                for worker in self.workers:
                    worker.model.check_block(block.block_id, tokens)

    def assert_nothing_left(self) -> None:
        """No request, no block, no slot."""
        self.run_until(lambda: not self.scheduler.requests and not self.in_flight_work(), what="no request left")
        self.run_until(lambda: not any(slots_taken(client) for client in self.clients()), what="all slots free")
        self.in_flight_work()
        scheduler = self.scheduler
        assert not (scheduler.finished_recving_kv_req_ids | scheduler.failed_recving_kv_req_ids) - self.reports_kept
        always = ("waiting", "running")
        newer = ("skipped_waiting", "kv_holding_waiting", "deferred_waiting", "_inflight_prefills", "deferred_frees")
        assert not [name for name in always if len(getattr(scheduler, name))]
        assert not [name for name in newer if len(getattr(scheduler, name, ()))]
        manager = scheduler.kv_cache_manager
        assert manager.block_pool.get_num_free_blocks() == self.setup.blocks - 1  # one is vLLM's null block
        assert not any(each.req_to_blocks for each in manager.coordinator.single_type_managers)
        self.remember_blocks()
        assert self.errors_expected or not self.counted("hook_errors"), "a hook raised"

    def counted(self, name: str) -> float:
        """In all processes. Older vLLMs ask the scheduler's connector for its numbers only when a worker has some."""
        untold = self.connector.get_kv_connector_stats()
        self.stats += [untold.data] if untold is not None else []
        return stats_total(self.stats, name)

    def clients(self) -> list[Any]:
        return [
            client
            for each in (self.connector, *(worker.connector for worker in self.workers))
            for client in clients_of(each)
        ]

    def shutdown(self) -> None:
        for close in (*(worker.connector.shutdown for worker in self.workers), self.scheduler.shutdown):
            began = time.monotonic()
            close()
            assert time.monotonic() - began < SHUTDOWN_S, "a connector's shutdown took too long"


__all__ = ["LIMIT_S", "Engine", "Setup", "WrongKV"]
