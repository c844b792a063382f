"""What the scheduler's half reads of vLLM, by attribute only, and what it remembers of each request.

vLLM says `request_finished` exactly once per request; the table is bounded all the same. Request ids may be used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .keys import ChunkKeys
from .loads import Load
from .lookups import Lookup

REQUESTS_MAX = 65_536
"""Requests. vLLM queues fewer; the oldest without a load goes first."""

BlockTable = tuple[list[int], ...]


class RequestLike(Protocol):
    """vLLM's Request. Optional, and looked at if there: skip_reading_prefix_cache, num_publishable_block_hashes,
    num_preemptions, num_prompt_tokens."""

    @property
    def request_id(self) -> str: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def block_hashes(self) -> Sequence[object]: ...


@dataclass(eq=False)
class Tracked:
    """One request, from its arrival to its end."""

    request: RequestLike
    keys: ChunkKeys
    blocks: BlockTable = ()
    """Per KV group; empty: not known, and then nothing is stored."""
    next_store: int = 0
    """Chunks before it have been looked at."""
    stores: bool = True
    """False: its KV was computed before the cache was reset."""
    is_stale: bool = False
    """Its KV was being loaded when the cache was reset."""
    asked_us: int | None = None
    """Since when the scheduler waits for an answer."""
    refused: bool = False
    """(0, False) has been answered, and stays so until the request is scheduled."""
    given_up: str = ""
    """Why it never loads again."""
    lookup: Lookup | None = None
    load: Load | None = None
    restarts: int = 0

    def allocated(self, block_ids: Iterable[Iterable[int]]) -> None:
        """The engine has given it blocks: at its beginning, after a load, after a preemption."""
        self.blocks = as_table(block_ids)
        self.next_store = 0
        self.stores, self.is_stale = not self.is_stale, False

    def outdated(self) -> None:
        """The cache has been reset. Blocks that it has now are not stored; those it gets after a preemption are."""
        self.ask_anew()
        self.stores = self.stores and not self.blocks
        self.is_stale = self.load is not None and self.load.state == "copying"
        if self.load is not None and self.load.state == "over":
            self.load = None

    def ask_anew(self) -> None:
        self.asked_us, self.refused, self.lookup = None, False, None


class Requests:
    """The table."""

    def __init__(self, hashes_per_chunk: int) -> None:
        self._per_chunk = hashes_per_chunk
        self._tracked: dict[str, Tracked] = {}

    def __len__(self) -> int:
        return len(self._tracked)

    def get(self, request_id: str) -> Tracked | None:
        return self._tracked.get(request_id)

    def track(self, request: RequestLike) -> Tracked:
        tracked = self._tracked.get(request.request_id)
        if tracked is None:
            tracked = self._tracked[request.request_id] = Tracked(request, ChunkKeys(self._per_chunk))
            if len(self._tracked) > REQUESTS_MAX:
                oldest = next((each for each, was in self._tracked.items() if was.load is None), request.request_id)
                del self._tracked[oldest]
        tracked.request = request
        return tracked

    def pop(self, request_id: str) -> Tracked | None:
        return self._tracked.pop(request_id, None)

    def all(self) -> Iterable[Tracked]:
        return self._tracked.values()


# --- scheduler outputs -----------------------------------------------------------------------------------------------


@dataclass
class Scheduled:
    """One request's part in a step."""

    request_id: str
    computed: int
    """Tokens before the step."""
    tokens: int
    """Tokens in the step."""
    prefill: int = 0
    """Of these, tokens of a prompt. A guess: a decode step has few."""


@dataclass
class Step:
    scheduled: list[Scheduled] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(each.tokens for each in self.scheduled)

    @property
    def prefill_tokens(self) -> int:
        return sum(each.prefill for each in self.scheduled)


DECODE_TOKENS_MAX = 16
"""Tokens of one request in one step up to which it is decoding, drafts included."""


def read_step(output: Any, find: Callable[[str], Tracked | None]) -> Step:
    """Reads vLLM's SchedulerOutput, and brings the block tables up to date."""
    step = Step()
    counts: Mapping[str, int] = output.num_scheduled_tokens
    for new in output.scheduled_new_reqs:
        tracked = find(new.req_id)
        if tracked is not None:
            tracked.blocks = as_table(new.block_ids)
        step.scheduled.append(_scheduled(new.req_id, new.num_computed_tokens, counts))
    cached = output.scheduled_cached_reqs
    for index, request_id in enumerate(cached.req_ids):
        tracked = find(request_id)
        ids = cached.new_block_ids[index]
        if tracked is not None:
            if _resumed(cached, index, request_id):
                tracked.blocks = as_table(ids or ())
            elif ids is not None:
                _append(tracked, ids)
        step.scheduled.append(_scheduled(request_id, cached.num_computed_tokens[index], counts))
    return step


def _scheduled(request_id: str, computed: int, counts: Mapping[str, int]) -> Scheduled:
    tokens = counts.get(request_id, 0)
    return Scheduled(request_id, computed, tokens, tokens if tokens > DECODE_TOKENS_MAX else 0)


def _resumed(cached: Any, index: int, request_id: str) -> bool:
    """A set of ids, or one flag per request, by version."""
    ids = getattr(cached, "resumed_req_ids", None)
    if ids is not None:
        return request_id in ids
    flags = getattr(cached, "resumed_from_preemption", None)
    return bool(flags[index]) if flags is not None else False


def as_table(block_ids: Iterable[Iterable[int]]) -> BlockTable:
    return tuple(list(group) for group in block_ids)


def _append(tracked: Tracked, block_ids: Sequence[Sequence[int]]) -> None:
    if len(block_ids) != len(tracked.blocks):
        tracked.blocks = ()  # a table whose beginning is not known names wrong blocks
        return
    for mine, more in zip(tracked.blocks, block_ids, strict=True):
        mine.extend(more)
