"""Numbers of one process between two looks at them: counters, gauges and histograms in a dict that can be pickled.

    {"c": {series: n}, "g": {series: value}, "h": {name: [seconds, …]}}

A series is a text, `name` or `name|label=value|…`: vLLM sends the dict through msgpack, which has no tuples as keys.
Merging adds counters and histograms; of a gauge the later value wins. So that ranks do not overwrite each other's gauges,
the connector marks every gauge with the process it is from (`of_process`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

COUNTERS: dict[str, tuple[str, ...]] = {
    "requests_hit": (),
    "hit_tokens": (),
    "loaded_chunks": (),
    "loaded_bytes": (),
    "stored_chunks": (),
    "stored_bytes": (),
    "kept_chunks": (),
    "lookups": (),
    "lookup_timeouts": (),
    "load_timeouts": ("phase",),
    "load_failures": ("code",),
    "refused": ("op",),
    "corrupt": (),
    "dropped_stores": ("reason",),
    "recomputed_tokens": ("reason",),
    "not_worth": (),
    "sidecar_restarts": (),
    "hook_errors": ("hook",),
}
"""Name → its labels, and so below."""
GAUGES: dict[str, tuple[str, ...]] = {
    "stuck": (),
    "quarantined_slots": (),
    "breaker": ("class",),
    "sidecar_up": (),
    "free_slots": (),
}
HISTOGRAMS: tuple[str, ...] = ("load", "lookup", "store", "copy_in", "copy_out", "staging_wait")

BUCKETS_S: tuple[float, ...] = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds, the same for all histograms: half a millisecond is a memcpy, ten seconds beyond any deadline."""

OBSERVATIONS_MAX = 4096
"""Per histogram between two looks. vLLM looks with every step; more than that only piles up where nobody looks."""

BREAKER_OK, BREAKER_PROBING, BREAKER_SUSPENDED, BREAKER_UNKNOWN = 0, 1, 2, 3


def series(name: str, labels: Mapping[str, str]) -> str:
    """The key of one time series. Label values come from fixed sets of words, never from users."""
    return "|".join([name, *(f"{label}={labels[label]}" for label in sorted(labels))])


def parse_series(key: str) -> tuple[str, dict[str, str]]:
    name, *pairs = key.split("|")
    return name, {label: value for label, _, value in (pair.partition("=") for pair in pairs)}


class Tally:
    """Thread-safe. Gauges stay until they change and are told again only then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._data = empty()
        self._gauges: dict[str, float] = {}

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        if n == 0:
            return
        key = series(name, labels)
        with self._lock:
            counters = self._data["c"]
            counters[key] = counters.get(key, 0) + n

    def gauge(self, name: str, value: float, **labels: str) -> None:
        key = series(name, labels)
        with self._lock:
            if self._gauges.get(key) != value:
                self._gauges[key] = value
                self._data["g"][key] = value

    def observe(self, name: str, seconds: float) -> None:
        with self._lock:
            seen = self._data["h"].setdefault(name, [])
            if len(seen) < OBSERVATIONS_MAX:
                seen.append(seconds)

    def take(self) -> dict[str, Any] | None:
        """What came since the last call; None: nothing."""
        with self._lock:
            data, self._data = self._data, empty()
        return None if is_empty(data) else data


def of_process(data: dict[str, Any], process: str) -> dict[str, Any]:
    """Marks the gauges: "scheduler", "rank0", … Changes and returns `data`."""
    gauges: dict[str, float] = {}
    for key, value in data["g"].items():
        name, labels = parse_series(key)
        gauges[series(name, {**labels, "process": process})] = value
    data["g"] = gauges
    return data


def empty() -> dict[str, Any]:
    return {"c": {}, "g": {}, "h": {}}


def is_empty(data: Mapping[str, Any]) -> bool:
    return not any(data.get(part) for part in ("c", "g", "h"))


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`other` is later, or of another process. Changes and returns `into`."""
    for part in ("c", "g", "h"):
        into.setdefault(part, {})
    for key, n in other.get("c", {}).items():
        into["c"][key] = into["c"].get(key, 0) + n
    into["g"].update(other.get("g", {}))
    for name, seen in other.get("h", {}).items():
        mine = into["h"].setdefault(name, [])
        mine.extend(seen[: max(0, OBSERVATIONS_MAX - len(mine))])
    return into
