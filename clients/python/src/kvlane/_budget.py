"""Who may lease how many slots, so that a sick device or stuck stores never take the slots a healthy load needs.

Two rules. Stores and others together get at most `others_max` of all slots: loads always keep the rest. And every device
keeps a reserve per class that the other devices cannot lease away; what is above the reserves is for whoever comes first.
Quarantined slots count as leased: they are exactly what a stuck device would pile up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .errors import InvalidArgument

SlotClass = Literal["load", "store", "other"]
SLOT_CLASSES: tuple[SlotClass, ...] = ("load", "store", "other")


@dataclass(frozen=True)
class Budgets:
    """Fractions are of all slots. `slots_max` caps single (mount, class) pairs on top, in slots."""

    others_max: float = 0.5
    load_reserve: float = 0.5
    other_reserve: float = 0.25
    slots_max: Mapping[tuple[str, SlotClass], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("others_max", "load_reserve", "other_reserve"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidArgument(f"{name} must be from 0 to 1, got {getattr(self, name)!r}")
        if self.load_reserve + self.other_reserve > 1:
            raise InvalidArgument("load_reserve and other_reserve promise more than all slots")


class Ledger:
    """Counts what is leased per mount and class and says how many more may be."""

    def __init__(self, budgets: Budgets, slots: int, devices: Mapping[str, str]) -> None:
        self._budgets = budgets
        self._slots = slots
        self._devices = devices  # mount → device; two mounts of one device share what the device has
        self._used: dict[tuple[str, SlotClass], int] = {(m, c): 0 for m in devices for c in SLOT_CLASSES}

    def used(self, mount: str, slot_class: SlotClass) -> int:
        return self._used[(mount, slot_class)]

    def take(self, mount: str, slot_class: SlotClass, count: int) -> None:
        self._used[(mount, slot_class)] += count

    def give(self, mount: str, slot_class: SlotClass, count: int) -> None:
        self._used[(mount, slot_class)] -= count

    def available(self, mount: str, slot_class: SlotClass) -> int:
        """How many more slots this mount may lease for this class."""
        loads: dict[str, int] = {device: 0 for device in self._devices.values()}
        others = dict(loads)
        for (name, cls), used in self._used.items():
            (loads if cls == "load" else others)[self._devices[name]] += used
        load_reserve = int(self._slots * self._budgets.load_reserve) // len(loads)
        other_reserve = int(self._slots * self._budgets.other_reserve) // len(loads)
        mine = self._devices[mount]

        answer = self._slots - sum(loads.values()) - sum(others.values())
        for device in loads:
            if device != mine:
                # A device's loads may use up its own reserve for stores: a load is what an engine waits for.
                unused = load_reserve + other_reserve - loads[device] - others[device]
                answer -= max(0, load_reserve - loads[device], unused)
        if slot_class != "load":
            answer -= max(0, load_reserve - loads[mine])
            kept = sum(max(0, other_reserve - used) for device, used in others.items() if device != mine)
            answer = min(answer, int(self._slots * self._budgets.others_max) - sum(others.values()) - kept)
        cap = self._budgets.slots_max.get((mount, slot_class))
        if cap is not None:
            answer = min(answer, cap - self._used[(mount, slot_class)])
        return max(0, answer)
