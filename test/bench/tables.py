"""The tables that are not throughput of a cell: a name → what measures it and returns JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import table_deadline
import table_growth
import table_idle
import table_roundtrip
import table_start
import table_stuck
from stage import Stage

TABLES: dict[str, Callable[[Stage], dict[str, Any]]] = {
    "round trip": table_roundtrip.measure,
    "start": table_start.measure,
    "idle": table_idle.measure,
    "deadline": table_deadline.measure,
    "stuck": table_stuck.measure,
    "growth": table_growth.measure,
}

# How long each takes, full and short: for the plan that is printed.
ESTIMATES_S: dict[str, tuple[float, float]] = {
    "round trip": (40, 5),
    "start": (15, 3),
    "idle": (20, 5),
    "deadline": (20, 8),
    "stuck": (110, 14),
    "growth": (220, 25),
}
