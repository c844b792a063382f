"""What the tests look at inside the connector. It is found by type, not by name: the connector's parts may move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kvlane import Client

DEPTH_MAX = 6


def _inside(thing: object, depth: int, seen: set[int]) -> Iterator[Client]:
    if id(thing) in seen or depth > DEPTH_MAX:
        return
    seen.add(id(thing))
    if isinstance(thing, Client):
        yield thing
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from _inside(value, depth + 1, seen)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from _inside(value, depth + 1, seen)
    elif type(thing).__module__.startswith("kvlane.vllm"):
        names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        for value in (
            [*vars(thing).values()] if hasattr(thing, "__dict__") else [getattr(thing, name, None) for name in names]
        ):
            yield from _inside(value, depth + 1, seen)


def clients_of(connector: object) -> list[Client]:
    """Each client once. An attribute's own attributes are followed only inside kvlane.vllm."""
    return list(_inside(connector, 0, set()))


def slots_taken(client: Client) -> int:
    """Leased or quarantined, while the client is up; 0 when there is no arena to lease from."""
    facts = client.client_stats()
    return client.options.slots - int(facts["slots_free"]) if facts["state"] == "up" else 0


def scheduler_half(connector: Any) -> Any:
    return connector._scheduler


def worker_half(connector: Any) -> Any:
    return connector._warden.worker


def namespace(connector: Any) -> str | None:
    """As agreed with the store, with its generation."""
    agreed: str | None = scheduler_half(connector)._agreement.key_namespace
    return agreed


def only_client(connector: object) -> Client:
    (client,) = clients_of(connector)
    return client


def stats_total(stats: list[dict[str, Any]], name: str) -> float:
    """Sum of a counter over all labels, over everything the engine was told."""
    from kvlane.vllm.stats import merge, parse_series

    merged: dict[str, Any] = {}
    for each in stats:
        merge(merged, each)
    return sum(n for key, n in merged.get("c", {}).items() if parse_series(key)[0] == name)
