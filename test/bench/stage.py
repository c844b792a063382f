"""What a table is told: which form of the run, where a disk is, and how many rounds."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

sys.path.insert(0, str(HERE.parents[1] / "clients" / "python" / "tests"))
import stall as stall  # noqa: E402  the stall lab, as the client's tests use it


@dataclass(frozen=True)
class Stage:
    """`form` is short, full or only; `pages` is "huge", or "4k: why"; `rounds` replaces a table's own number."""

    form: str
    disk: Path
    pages: str
    rounds: int | None

    def count(self, short: int, full: int) -> int:
        """Of rounds."""
        return self.rounds or self.pick(short, full)

    def pick(self, short: int, full: int) -> int:
        return short if self.form == "short" else full

    @property
    def memory(self) -> str:
        return "huge" if self.pages == "huge" else "4k"
