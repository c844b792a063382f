"""What one client asks for, by the dice: which keys, how long they are, how much time there is."""

from __future__ import annotations

import random
from dataclasses import dataclass

NAMESPACE = "chaos"
SLOT_BYTES = 65536
SLOTS = 48
KEYS = 40
CHANGEABLE_LENGTHS = frozenset({37, 38, 39})
"""Keys of which versions of two lengths are stored: the only ones that may be LENGTH_MISMATCH."""
TIMEOUTS_MS = (15, 40, 100, 250, 600)


def length_of(key: int) -> int:
    return (4096, 8192, 10000, 20480, 40001, 65536, 64, 12288)[key % 8]


def hex_of(key: int) -> str:
    return f"{key:04x}"


@dataclass(frozen=True)
class Asked:
    op: str
    mount: int
    keys: list[int]
    timeout_ms: int
    replace: bool = False
    other_length: bool = False
    cancel_s: float = -1.0

    def lengths(self) -> list[int]:
        return [length_of(key) + 4096 * self.other_length if length_of(key) + 4096 <= SLOT_BYTES else length_of(key) for key in self.keys]

    def hexes(self) -> list[str]:
        return [hex_of(key) for key in self.keys]


def think(dice: random.Random) -> Asked:
    op = dice.choices(("load", "store", "lookup", "remove", "ping"), (50, 34, 8, 6, 2))[0]
    count = dice.choice((1, 1, 2, 4)) if op in ("load", "store") else dice.choice((1, 2, 8))
    keys = dice.sample(range(KEYS), count)
    return Asked(
        op,
        dice.randrange(2),
        keys,
        dice.choice(TIMEOUTS_MS),
        replace=dice.random() < 0.6,
        other_length=count == 1 and keys[0] in CHANGEABLE_LENGTHS and dice.random() < 0.5,
        cancel_s=dice.random() * 0.02 if dice.random() < 0.05 else -1.0,
    )
