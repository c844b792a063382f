"""kvlane's numbers in vLLM's own metrics: the log line every ten seconds, and /metrics.

All series that can be named beforehand exist from the start with 0, so that a dashboard shows them before the first
incident. Names are `vllm:kvlane_…`; gauges carry the process they are from.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics, KVConnectorStats

from . import stats

logger = logging.getLogger("vllm.kvlane")

KNOWN_WORDS: dict[str, tuple[str, ...]] = {
    "load_timeouts": ("queue", "open", "stat", "header", "read", "answer", "report"),
    "load_failures": ("CORRUPT", "NOT_FOUND", "IO_ERROR", "SIDECAR_GONE"),
    "refused": ("load", "store", "lookup"),
    "dropped_stores": ("no_slot", "suspended", "timeout", "no_space", "sidecar", "failed"),
    "recomputed_tokens": ("timeout", "suspended", "corrupt", "load_failed"),
}
"""Label values worth a 0 on a dashboard; others appear when they happen."""

HELP: dict[str, str] = {
    "requests_hit": "Requests whose prefix was loaded from the kvlane store, in part or whole.",
    "hit_tokens": "Prompt tokens that were claimed as hits.",
    "loaded_chunks": "Chunks read from the store and copied into the KV cache.",
    "loaded_bytes": "Bytes of these chunks.",
    "stored_chunks": "Chunks written to the store.",
    "stored_bytes": "Bytes of these chunks.",
    "kept_chunks": "Stores of chunks that were there already.",
    "lookups": "Questions how much of a prefix is stored.",
    "lookup_timeouts": "Such questions not answered within lookup_budget_ms.",
    "load_timeouts": "Loads not done at their deadline, by the phase they were in.",
    "load_failures": "Loads that failed before their deadline, by code.",
    "refused": "Operations refused at once because the mount is suspended, by operation.",
    "corrupt": "Chunks whose checksum did not match; never used.",
    "dropped_stores": "Chunks not stored, by reason.",
    "recomputed_tokens": "Prompt tokens computed although they were stored, by reason.",
    "not_worth": "Loads not started because computing was expected to be faster.",
    "sidecar_restarts": "Sidecars that were started again.",
    "hook_errors": "Exceptions caught in the connector's hooks: bugs.",
    "stuck": "System calls that sit in the kernel now.",
    "quarantined_slots": "Staging slots that wait for the kernel to return now.",
    "breaker": "State of the mount per class: 0 ok, 1 probing, 2 suspended, 3 unknown.",
    "sidecar_up": "1 while the sidecar answers.",
    "free_slots": "Staging slots that are free now.",
    "load": "Load of a request's chunks from the store to memory.",
    "lookup": "Answer how much of a prefix is stored.",
    "store": "Write of a chunk.",
    "copy_in": "Copy from staging memory to the KV cache.",
    "copy_out": "Copy from the KV cache to staging memory.",
    "staging_wait": "How long a request waited for its chunks before it was scheduled.",
}


@dataclass
class KvlaneStats(KVConnectorStats):  # type: ignore[misc]
    """`data` as in stats.py."""

    def __post_init__(self) -> None:
        if not self.data:
            self.reset()

    def reset(self) -> None:
        self.data = stats.empty()

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        stats.merge(self.data, other.data)
        return self

    def reduce(self) -> dict[str, int | float]:
        """For the log line: what happened in the interval, and the median and worst of the times."""
        line: dict[str, int | float] = {f"kvlane {key}": n for key, n in sorted(self.data["c"].items()) if n}
        for name, seen in sorted(self.data["h"].items()):
            if seen:
                ordered = sorted(seen)
                line[f"kvlane {name} median ms"] = round(ordered[len(ordered) // 2] * 1000, 2)
                line[f"kvlane {name} max ms"] = round(ordered[-1] * 1000, 2)
        return line

    def is_empty(self) -> bool:
        return stats.is_empty(self.data)


class KvlanePromMetrics(KVConnectorPromMetrics):  # type: ignore[misc]
    """One metric per name, one child per engine and label values."""

    def __init__(
        self,
        vllm_config: Any,
        metric_types: dict[Any, Any],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        self._labels: dict[str, tuple[str, ...]] = {**stats.COUNTERS}
        self._labels |= {name: (*labels, "process") for name, labels in stats.GAUGES.items()}
        self._labels |= dict.fromkeys(stats.HISTOGRAMS, ())
        self._values = per_engine_labelvalues
        self._metrics: dict[str, Any] = {}
        for name, own in self._labels.items():
            arguments: dict[str, Any] = {
                "name": f"vllm:kvlane_{name}",
                "documentation": HELP[name],
                "labelnames": [*labelnames, *own],
            }
            if name in stats.COUNTERS:
                self._metrics[name] = metric_types[Counter](**arguments)
            elif name in stats.GAUGES:
                self._metrics[name] = metric_types[Gauge](**arguments, multiprocess_mode="mostrecent")
            else:
                arguments["name"] += "_seconds"
                self._metrics[name] = metric_types[Histogram](**arguments, buckets=list(stats.BUCKETS_S))
        self._children: dict[tuple[int, str], Any] = {}
        for engine in per_engine_labelvalues:
            for name, own in self._labels.items():
                if not own:
                    self._child(engine, name)
                elif len(own) == 1:
                    for word in KNOWN_WORDS.get(name, ()):
                        self._child(engine, stats.series(name, {own[0]: word}))

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        for part, record in (("c", _add), ("g", _set), ("h", _observe)):
            for key, value in transfer_stats_data.get(part, {}).items():
                try:
                    record(self._child(engine_idx, key), value)
                except Exception:  # this is the API server: a number is not worth a request
                    logger.debug("kvlane: %s could not be recorded", key, exc_info=True)

    def _child(self, engine: int, key: str) -> Any:
        child = self._children.get((engine, key))
        if child is None:
            name, labels = stats.parse_series(key)
            values = [*self._values[engine], *(labels.get(label, "") for label in self._labels[name])]
            child = self._children[(engine, key)] = self._metrics[name].labels(*values)
        return child


def _add(child: Any, n: int) -> None:
    child.inc(n)


def _set(child: Any, value: float) -> None:
    child.set(value)


def _observe(child: Any, seen: list[float]) -> None:
    for seconds in seen:
        child.observe(seconds)
