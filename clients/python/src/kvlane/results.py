"""What a settled task says. Failures are data: an engine reads `failed` and recomputes those blocks.

`source` tells who had the word: "sidecar", or "client" when our own clock ran out, the sidecar died, or nothing was ever
sent. `code` is one of the protocol's codes, or SIDECAR_GONE, which exists on this side only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import TaskFailed

Source = Literal["sidecar", "client"]
SlotWord = Literal["free", "quarantined"]

SIDECAR_GONE = "SIDECAR_GONE"
"""No sidecar, or it died before it answered. A miss; the next life starts by itself."""


@dataclass(frozen=True)
class Failure:
    """What went wrong with one block. `slot` "quarantined": its memory belongs to the kernel, the lease is over. `outcome`
    "unknown": the store or remove may still take effect. `stored_bytes`: the length a LENGTH_MISMATCH found instead."""

    block: int
    code: str
    phase: str | None = None
    waited_ms: int | None = None
    slot: SlotWord | None = None
    errno: str | None = None
    message: str | None = None
    outcome: str | None = None
    stored_bytes: int | None = None
    source: Source = "sidecar"


@dataclass(frozen=True)
class Result:
    """Common to all results. `code` and `message` are set when the whole task failed, or for the first failed block."""

    ok: bool
    code: str | None = None
    message: str | None = None
    source: Source = "sidecar"

    def check(self) -> None:
        """Raises TaskFailed unless everything went well."""
        if not self.ok:
            raise TaskFailed(self.code or "FAILED", self.message or "the task did not succeed")


@dataclass(frozen=True)
class BlocksResult(Result):
    """Of a load, a store or a remove. `done` + len(`failed`) is the number of blocks; `kept` counts stores of blocks
    that were there already."""

    done: int = 0
    failed: tuple[Failure, ...] = ()
    kept: int = 0


@dataclass(frozen=True)
class LookupResult(Result):
    """`present[i]`: True, False, or None for not known at the deadline. `prefix` counts the leading Trues."""

    present: tuple[bool | None, ...] = ()
    prefix: int = 0
    complete: bool = False


@dataclass(frozen=True)
class NamespaceResult(Result):
    """`key_namespace` is what goes into keys. `state`: created, matches or differs (then look at `fingerprint`)."""

    state: str = ""
    key_namespace: str = ""
    generation: int = 0
    fingerprint: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ControlResult(Result):
    """Of ping, stats, stuck, help, cancel: the answer as it came."""

    body: Mapping[str, Any] = field(default_factory=dict)
