"""The connector on stand-ins for the vLLM classes that it is built on, with and without what came later: it must be a
class that can be made everywhere, and use what is there."""

from __future__ import annotations

import enum
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from fakes import Store, cache_config, vllm_config

from kvlane import Client, Options
from kvlane.testing import FakeSidecar
from kvlane.vllm.config import OptionError
from kvlane.vllm.guard import FAILED_LOAD
from kvlane.vllm.messages import CopyOrder, Orders

BASE = "vllm.distributed.kv_transfer.kv_connector.v1.base"
METRICS = "vllm.distributed.kv_transfer.kv_connector.v1.metrics"
SCHEDULER = "vllm.v1.core.sched.scheduler"
FACTORY = "vllm.distributed.kv_transfer.kv_connector.factory"
OURS = ("kvlane.vllm.carriers", "kvlane.vllm.connector", "kvlane.vllm.prom")


class Role(enum.Enum):
    SCHEDULER = 0
    WORKER = 1


@dataclass
class TransferResults:
    finished_sending: set[str] = field(default_factory=set)
    finished_recving: set[str] = field(default_factory=set)
    failed_recving: set[str] = field(default_factory=set)


class Factory:
    _registry: ClassVar[dict[str, Any]] = {}

    @classmethod
    def register_connector(cls, name: str, module: str, class_name: str) -> None:
        if name in cls._registry:
            raise ValueError("registered already")
        cls._registry[name] = (module, class_name)


class FreesAtOnce:
    def _free_request(self, request: Any) -> None: ...


class Holds:
    def _free_request(self, request: Any, delay_free_blocks: bool = False) -> None: ...


@dataclass
class Stats:
    data: dict[str, Any] = field(default_factory=dict)


def base_module(*, meta: bool, failed_recving: bool, third_argument: bool) -> ModuleType:
    module: Any = ModuleType(BASE)

    class Base:
        def __init__(self, vllm_config: Any, role: Any) -> None:
            self._connector_metadata: Any = None

        def bind_connector_metadata(self, metadata: Any) -> None:
            self._connector_metadata = metadata

        def get_block_ids_with_load_errors(self) -> set[int]:
            return set()

        def get_handshake_metadata(self) -> None:
            return None

    class BaseWithCache(Base):
        def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
            super().__init__(vllm_config, role)

    class SupportsHMA:
        @classmethod
        def register(cls, subclass: type) -> None:
            module.registered = subclass

    chosen: Any = BaseWithCache if third_argument else Base
    if meta:
        chosen.build_connector_worker_meta = lambda self: None
        module.KVConnectorWorkerMetadata = type("KVConnectorWorkerMetadata", (), {})
    if failed_recving:
        module.KVConnectorTransferResults = TransferResults
    module.KVConnectorBase_V1 = chosen
    module.KVConnectorMetadata = type("KVConnectorMetadata", (), {})
    module.KVConnectorHandshakeMetadata = type("KVConnectorHandshakeMetadata", (), {})
    module.SupportsHMA = SupportsHMA
    module.KVConnectorRole = Role
    return module  # type: ignore[no-any-return]


VERSIONS = {
    "0.11.1": {"meta": False, "failed_recving": False, "third_argument": False},
    "0.13": {"meta": False, "failed_recving": False, "third_argument": True},
    "0.18": {"meta": True, "failed_recving": False, "third_argument": True},
    "0.30": {"meta": True, "failed_recving": True, "third_argument": True},
}
Make = Callable[..., Any]


@pytest.fixture
def vllm_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Make]]:
    """vLLM of that version, and what makes connectors for it."""
    fake = FakeSidecar(Store())
    made: list[Any] = []
    monkeypatch.setenv("PYTHONHASHSEED", "0")

    def connect(options: Options) -> Client:
        return Client(fake.options(slots=options.slots, timeout_ms=options.timeout_ms))

    def install(version: str) -> Make:
        base = base_module(**VERSIONS[version])
        metrics: Any = ModuleType(METRICS)
        metrics.KVConnectorStats, metrics.KVConnectorPromMetrics = Stats, object
        factory: Any = ModuleType(FACTORY)
        factory.KVConnectorFactory = type("KVConnectorFactory", (Factory,), {"_registry": {}})
        prometheus: Any = ModuleType("prometheus_client")
        prometheus.Counter, prometheus.Gauge, prometheus.Histogram = type("C", (), {}), type("G", (), {}), type("H", (), {})
        vllm: Any = ModuleType("vllm")
        vllm.__version__ = version
        v1: Any = ModuleType(BASE.rpartition(".")[0])
        v1.base, v1.metrics = base, metrics
        scheduler: Any = ModuleType(SCHEDULER)
        scheduler.Scheduler = FreesAtOnce if version in ("0.11.1", "0.13") else Holds
        modules = {
            BASE: base,
            METRICS: metrics,
            FACTORY: factory,
            SCHEDULER: scheduler,
            "prometheus_client": prometheus,
            "vllm": vllm,
        }
        for name, module in (*modules.items(), (v1.__name__, v1)):
            monkeypatch.setitem(sys.modules, name, module)
        for name in OURS:
            monkeypatch.delitem(sys.modules, name, raising=False)
        connector = importlib.import_module("kvlane.vllm.connector")
        for name in OURS:
            sys.modules.pop(name, None)  # nobody else shall find the one that was made here
        connector.KvlaneConnector.client_factory = staticmethod(connect)

        def make(role: Role, *, policy: str | None = "recompute", **extra: Any) -> Any:
            config = vllm_config()
            transfer = {"kv_role": "kv_both", "kv_connector_extra_config": {"root": "/mnt/kv", **extra}}
            config.kv_transfer_config = SimpleNamespace(**transfer)
            if policy is not None:
                config.kv_transfer_config.kv_load_failure_policy = policy
            made.append(connector.KvlaneConnector(config, role, cache_config()))
            return made[-1]

        make.module = base  # type: ignore[attr-defined]
        return make

    yield install
    for each in made:
        each.shutdown()
    fake.__exit__()


def failing(*blocks: int) -> Orders:
    return Orders(copies=[CopyOrder(FAILED_LOAD, "r", 0, 0, (blocks,))])


def metadata(connector: Any, orders: Orders) -> Any:
    """What the scheduler's object would send."""
    carrier = type(connector.build_connector_meta(empty_step()))
    return carrier(orders)


def empty_step() -> Any:
    cached = SimpleNamespace(req_ids=[], new_block_ids=[], num_computed_tokens=[], resumed_req_ids=set())
    return SimpleNamespace(num_scheduled_tokens={}, scheduled_new_reqs=[], scheduled_cached_reqs=cached)


@pytest.mark.parametrize(
    ("version", "policy", "mode"),
    [
        ("0.11.1", None, "async"),
        ("0.13", "recompute", "async"),
        ("0.13", "fail", "none"),
        ("0.18", "fail", "staged"),
        ("0.30", "fail", "staged"),
        ("0.30", "recompute", "staged"),
    ],
)
def test_each_vllm_is_loaded_from_as_it_allows(
    vllm_of: Callable[[str], Make], version: str, policy: str | None, mode: str
) -> None:
    connector = vllm_of(version)(Role.SCHEDULER, policy=policy)
    assert connector._features.load_mode == mode


@pytest.mark.parametrize("version", VERSIONS)
def test_a_load_that_failed_is_told_once_in_the_words_of_that_vllm(vllm_of: Callable[[str], Make], version: str) -> None:
    make = vllm_of(version)
    worker, scheduler = make(Role.WORKER), make(Role.SCHEDULER)
    worker.bind_connector_metadata(metadata(scheduler, failing(3, 4)))
    worker.start_load_kv(None, anything_new=1)
    worker.wait_for_save()
    if version == "0.30":
        results = worker.get_transfer_results(set())
        assert (results.finished_recving, results.failed_recving) == ({"r"}, {"r"})
        assert worker.get_block_ids_with_load_errors() == set()
        assert worker.get_transfer_results(set()) == TransferResults()
    else:
        assert worker.get_finished(set()) == (None, {"r"})
        assert worker.get_block_ids_with_load_errors() == {3, 4}
        assert worker.get_finished(set()) == (None, None)
        assert worker.get_block_ids_with_load_errors() == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_hybrid_manager_is_offered_only_where_failures_can_be_told_by_request(
    vllm_of: Callable[[str], Make], version: str
) -> None:
    make: Any = vllm_of(version)
    assert hasattr(make.module, "registered") == (version == "0.30")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_mistake_in_the_options_stops_the_start(vllm_of: Callable[[str], Make], version: str) -> None:
    with pytest.raises(OptionError, match="did you mean 'timeout_ms'"):
        vllm_of(version)(Role.WORKER, timout_ms=5)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_abort_while_loading_is_our_business_only_where_vllm_gives_the_blocks_away(
    vllm_of: Callable[[str], Make], version: str
) -> None:
    connector = vllm_of(version)(Role.SCHEDULER)
    request = SimpleNamespace(request_id="r", block_hashes=[], num_tokens=64)
    connector.update_state_after_alloc(request, SimpleNamespace(get_block_ids=lambda: ([5, 6],)), 32)
    assert [order.request for order in connector.build_connector_meta(empty_step()).orders.copies] == ["r"]
    assert connector.request_finished(request, [5, 6]) == (False, None)
    output = SimpleNamespace(finished_recving={"r", "s"})
    orders = connector.build_connector_meta(empty_step()).orders
    connector.update_connector_output(output)
    if version in ("0.11.1", "0.13"):
        assert (orders.cancels, output.finished_recving) == (["r"], {"s"})
    else:
        assert (orders.cancels, output.finished_recving) == ([], {"r", "s"})


def test_preemptions_may_come_as_ids_or_as_metadata(vllm_of: Callable[[str], Make]) -> None:
    worker = vllm_of("0.18")(Role.WORKER)
    worker.handle_preemptions({"r"})
    worker.handle_preemptions(Orders())


def test_a_worker_that_cannot_take_part_turns_the_scheduler_off(vllm_of: Callable[[str], Make]) -> None:
    make = vllm_of("0.30")
    worker, scheduler = make(Role.WORKER), make(Role.SCHEDULER)
    worker.register_kv_caches({})  # no torch here: its layout cannot be read
    told = worker.get_handshake_metadata()
    assert told.facts is None and told.refused
    scheduler.set_xfer_handshake_metadata_pp_aware({(0, 0): told})
    request = SimpleNamespace(request_id="r", block_hashes=[], num_tokens=64)
    assert scheduler.get_num_new_matched_tokens(request, 0) == (0, False)
    assert not scheduler.build_connector_meta(empty_step()).orders
    assert scheduler.request_finished(request, []) == (False, None)
    assert scheduler.reset_cache() is True


def test_an_engine_to_which_only_another_connectors_word_is_passed_on_says_so(
    vllm_of: Callable[[str], Make], caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = vllm_of("0.30")(Role.SCHEDULER)
    scheduler.set_xfer_handshake_metadata_pp_aware({(0, 0): object()})
    assert "one child's handshake only" in caplog.text
    request = SimpleNamespace(request_id="r", block_hashes=[], num_tokens=64)
    assert scheduler.get_num_new_matched_tokens(request, 0) == (0, False)


def test_numbers_carry_the_process_they_are_from(vllm_of: Callable[[str], Make]) -> None:
    scheduler = vllm_of("0.30")(Role.SCHEDULER)
    stats = scheduler.get_kv_connector_stats()
    assert "sidecar_up|process=scheduler" in stats.data["g"]
    again = type(scheduler).build_kv_connector_stats(stats.data)
    assert again.data == stats.data and not again.is_empty()
    assert type(scheduler).build_kv_connector_stats().is_empty()
