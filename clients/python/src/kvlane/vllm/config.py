"""The options of the connector: what a user writes into `kv_connector_extra_config`, checked once at start-up.

Surprising: nothing here looks at the file system. Whether `root` exists is a question for the sidecar, which may hang on
it; a mistake that can be seen in the text alone stops the engine at once, with a sentence that says what would be right.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from .._huge_pages import HUGE_PAGES, HugePages
from ..options import CAPACITY_BYTES, CAPACITY_SHARE, Options

MOUNT = "kv"
"""The name of the only mount, in the sidecar's command line and answers."""

SLOT_ALIGN_BYTES = 4096
CHUNK_TOKENS_MAX = 256
"""Of the default chunk: a prefix is found in steps of a chunk, and what is beyond the last whole one is computed again."""

LoadMode = Literal["auto", "staged", "async"]
Role = Literal["scheduler", "worker"]

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
"""Shorter than a kvlane namespace by what the digest needs."""

_MISSING = object()


class OptionError(ValueError):
    """An option that cannot be right: names it, says what is wrong and what would be right."""


@dataclass(frozen=True)
class ConnectorOptions:
    """Times in milliseconds. `root` is the only one without a default."""

    root: str
    """Directory on the mount."""
    create: bool = True
    """Make the store when the directory has none."""

    timeout_ms: float | None = None
    """One deadline for every load, for those who want one number. None: by worth, between floor and ceiling."""
    deadline_floor_ms: float = 50
    deadline_ceiling_ms: float = 1500
    lookup_budget_ms: float = 100
    """How long a request may wait for the answer whether its prefix is stored."""
    store_timeout_ms: float = 5000
    load_mode: LoadMode = "auto"

    arena_mib: int = 1024
    """Memory for staging, per worker. On a GPU it is pinned."""
    huge_pages: HugePages = "auto"
    """As in kvlane.Options: whether the arena must lie on huge pages, and on which."""
    chunk_mib: float = 1
    """A chunk has at least that, but not more than 256 tokens."""
    chunk_tokens: int | None = None
    """Overrides chunk_mib. A multiple of the block size."""

    store: bool = True
    load: bool = True
    namespace: str = ""
    """The readable part of the namespace; empty: from the model's name."""
    weights_version: str = ""
    """Part of the fingerprint: change it when other weights are served under the same name."""

    engine: Literal["threads", "aio"] | None = None
    lanes: int | None = None
    index_ms: int | None = None
    capacity_bytes: int | None = None
    capacity_share: int | None = None
    """What the store may occupy, in bytes or per cent of its file system; the workers' sidecars keep it within that. None: as it grows."""
    stall_ms: int | None = None
    node: str | None = None
    sidecar: str | None = None

    @classmethod
    def parse(cls, extra_config: Mapping[str, Any] | None, *, block_size: int | None = None) -> ConnectorOptions:
        """Raises OptionError. `block_size`: tokens per KV block, where it is known."""
        given = dict(extra_config or {})
        known = [each.name for each in fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
                hint = f"did you mean {near[0]!r}?" if near else "known are: " + ", ".join(known) + "."
                raise OptionError(f"kvlane: there is no option {name!r} in kv_connector_extra_config; {hint}")
        take = _Reader(given)
        read: dict[str, Any] = {
            "root": take.root(),
            "create": take.boolean("create"),
            "timeout_ms": take.number("timeout_ms", 1, 600_000, none=True),
            "deadline_floor_ms": take.number("deadline_floor_ms", 1, 600_000),
            "deadline_ceiling_ms": take.number("deadline_ceiling_ms", 1, 600_000),
            "lookup_budget_ms": take.number("lookup_budget_ms", 1, 60_000),
            "store_timeout_ms": take.number("store_timeout_ms", 1, 600_000),
            "load_mode": take.one_of("load_mode", ("auto", "staged", "async")),
            "arena_mib": take.whole("arena_mib", 1, 1 << 20),
            "huge_pages": take.one_of("huge_pages", HUGE_PAGES),
            "chunk_mib": take.number("chunk_mib", 1 / 256, 1024),
            "chunk_tokens": take.whole("chunk_tokens", 1, 1 << 20, none=True),
            "store": take.boolean("store"),
            "load": take.boolean("load"),
            "namespace": take.namespace(),
            "weights_version": take.text("weights_version"),
            "engine": take.one_of("engine", ("threads", "aio"), none=True),
            "lanes": take.whole("lanes", 1, 64, none=True),
            "index_ms": take.whole("index_ms", 0, 60_000, none=True),
            "capacity_bytes": take.whole("capacity_bytes", *CAPACITY_BYTES, none=True),
            "capacity_share": take.whole("capacity_share", *CAPACITY_SHARE, none=True),
            "stall_ms": take.whole("stall_ms", 1, 600_000, none=True),
            "node": take.text("node", none=True),
            "sidecar": take.text("sidecar", none=True),
        }
        options = cls(**{name: value for name, value in read.items() if value is not _MISSING})
        options._check_together(block_size)
        return options

    def _check_together(self, block_size: int | None) -> None:
        if self.deadline_floor_ms > self.deadline_ceiling_ms:
            raise OptionError(
                f"kvlane: deadline_floor_ms ({self.deadline_floor_ms:g}) is above deadline_ceiling_ms "
                f"({self.deadline_ceiling_ms:g}); the floor must not be above the ceiling. For one deadline for all "
                "loads set timeout_ms alone."
            )
        if self.capacity_bytes is not None and self.capacity_share is not None:
            raise OptionError("kvlane: capacity_bytes and capacity_share are both set; one limit of the store is wanted.")
        if self.chunk_tokens is not None and block_size and self.chunk_tokens % block_size:
            below = self.chunk_tokens // block_size * block_size or block_size
            raise OptionError(
                f"kvlane: chunk_tokens is {self.chunk_tokens}, which is no multiple of the KV block size of {block_size} "
                f"tokens; {below} would be right."
            )

    def blocks_per_chunk(self, block_tokens: int, block_bytes: int) -> int:
        """`block_bytes`: of one block on one rank, all layers. The same on every rank and in the scheduler, or else the
        caller passes 0 (pipeline stages of different sizes): then a chunk has as many tokens as it may."""
        if self.chunk_tokens is not None:
            return max(1, self.chunk_tokens // block_tokens)
        most = max(1, CHUNK_TOKENS_MAX // block_tokens)
        if block_bytes <= 0:
            return most
        return min(most, max(1, math.ceil(self.chunk_mib * (1 << 20) / block_bytes)))

    def slots(self, slot_bytes: int) -> int:
        """Of a worker's arena. Raises OptionError where not even two fit: one to load and one to store."""
        slots = (self.arena_mib << 20) // slot_bytes
        if slots < 2:
            need = math.ceil(2 * slot_bytes / (1 << 20))
            raise OptionError(
                f"kvlane: arena_mib is {self.arena_mib}, but one chunk takes {slot_bytes / (1 << 20):.1f} MiB and two are the "
                f"least; set arena_mib to {need} or more, or chunk_tokens lower."
            )
        return slots

    def to_client_options(self, role: Role, slots: int, slot_bytes: int) -> Options:
        """For the client of one process: a worker's with its arena, the scheduler's with next to none."""
        timeout_ms = self.lookup_budget_ms if role == "scheduler" else self.timeout_ms or self.deadline_ceiling_ms
        return Options(
            mounts={MOUNT: self.root},
            create=self.create,
            slot_bytes=-(-slot_bytes // SLOT_ALIGN_BYTES) * SLOT_ALIGN_BYTES,
            slots=slots,
            huge_pages=self.huge_pages if role == "worker" else "off",
            timeout_ms=max(1, round(timeout_ms)),
            stall_ms=self.stall_ms,
            engine=self.engine,
            lanes=self.lanes,
            index_ms=self.index_ms,
            capacity_bytes=self.capacity_bytes if role == "worker" else None,
            capacity_share=self.capacity_share if role == "worker" else None,
            node=self.node,
            sidecar=self.sidecar,
        )


class _Reader:
    """One option at a time: its value, _MISSING for "take the default", or an OptionError."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def root(self) -> str:
        value = self._given.get("root")
        example = '"kv_connector_extra_config": {"root": "/mnt/kv"}'
        if value is None:
            raise OptionError(f"kvlane: root is missing; name the directory of the store on its mount, as in {example}")
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
            raise OptionError(f"kvlane: root is {value!r}; it must be the absolute path of a directory, as in {example}")
        return value

    def boolean(self, name: str) -> Any:
        value = self._given.get(name, _MISSING)
        if value is _MISSING or isinstance(value, bool):
            return value
        raise OptionError(f"kvlane: {name} is {value!r}; it must be true or false, without quotes")

    def number(self, name: str, least: float, most: float, *, none: bool = False) -> Any:
        value = self._given.get(name, _MISSING)
        if value is _MISSING or (none and value is None):
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise OptionError(f"kvlane: {name} is {value!r}; it must be a number from {least:g} to {most:g}")
        return value

    def whole(self, name: str, least: int, most: int, *, none: bool = False) -> Any:
        value = self.number(name, least, most, none=none)
        if value is _MISSING or value is None:
            return value
        if value != int(value):
            raise OptionError(f"kvlane: {name} is {value!r}; it must be a whole number from {least} to {most}")
        return int(value)

    def one_of(self, name: str, words: tuple[str, ...], *, none: bool = False) -> Any:
        value = self._given.get(name, _MISSING)
        if value is _MISSING or value in words or (none and value is None):
            return value
        raise OptionError(f"kvlane: {name} is {value!r}; it must be one of " + ", ".join(map(repr, words)))

    def text(self, name: str, *, none: bool = False) -> Any:
        value = self._given.get(name, _MISSING)
        if value is _MISSING or isinstance(value, str) or (none and value is None):
            return value
        raise OptionError(f"kvlane: {name} is {value!r}; it must be a text in quotes")

    def namespace(self) -> Any:
        value = self.text("namespace")
        if value is _MISSING or value == "" or _NAMESPACE.fullmatch(cast(str, value)):
            return value
        raise OptionError(
            f"kvlane: namespace is {value!r}; it must begin with a letter or digit and have at most 40 of letters, digits, "
            "dot, underscore and dash"
        )
