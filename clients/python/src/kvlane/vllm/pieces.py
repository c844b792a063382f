"""The records of loads on a worker: a load, and the pieces it is cut into."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._arena import Slot
from .._pending import Task
from ..results import BlocksResult
from .messages import CopyOrder, LoadOrder
from .transfers import Transfer


@dataclass(eq=False)
class Piece:
    """Neighbouring chunks of a load that are one request to the sidecar."""

    load: Load
    first: int
    keys: tuple[str, ...]
    slots: list[Slot] = field(default_factory=list)
    task: Task[BlocksResult] | None = None
    landed: int | None = None  # usable from the front; None: not answered yet
    transfer: Transfer | None = None
    copied: bool = False

    def release(self, start: int = 0) -> None:
        for slot in self.slots[start:]:
            slot.release()
        del self.slots[start:]


@dataclass(eq=False)
class Load:
    order: LoadOrder
    namespace: str
    began: float
    deadline: float
    pieces: list[Piece] = field(default_factory=list)
    limit: int = 0  # chunks before the first one that is known to be unusable
    code: str = ""
    phase: str = ""
    copy: CopyOrder | None = None
    bad_order: bool = False
    blocks: list[tuple[tuple[int, ...], ...]] = field(default_factory=list)  # per chunk, once a copy is ordered
    staged_at: float | None = None
    copy_began: float | None = None

    def cut(self, at: int, code: str, phase: str) -> None:
        if at < self.limit:
            self.limit, self.code, self.phase = at, code, phase
