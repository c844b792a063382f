"""What a run has found so far. On disk after every table, so that a run which is cut short loses nothing, and a full one can go on."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from arms import arm_of

THE_SAME = ("source", "cpu", "cores", "kernel", "thp", "shmem_thp", "node", "python", "client_json", "fio")


class Results:
    """`known`: conditions (of the first part), parts, form, planned, cells and tables by name, media, cut."""

    def __init__(self, path: Path, form: str, fresh: bool, conditions: dict[str, Any]) -> None:
        self.path = path
        self.known: dict[str, Any] = {"form": form, "conditions": conditions, "parts": [], "cells": {}, "tables": {}}
        if form == "full" and not fresh:
            self._go_on(conditions)
        self.known["parts"].append(conditions)
        self.known.pop("cut", None)

    def _go_on(self, conditions: dict[str, Any]) -> None:
        """With an unfinished run of the same source on the same machine. What failed there is tried again."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            before = json.loads(self.path.read_text())
            same = all(before["conditions"][name] == conditions[name] for name in THE_SAME)
            if same and conditions["source"] and not is_complete(before):
                before["cells"] = {name: cell for name, cell in before["cells"].items() if cell["arms"]}
                before["tables"] = {name: table for name, table in before["tables"].items() if "failed" not in table}
                self.known = before

    def has(self, name: str) -> bool:
        return name in self.known["cells"] or name in self.known["tables"]

    def failed(self, item: Any, why: str) -> None:
        if isinstance(item, str):
            self.known["tables"][item] = {"failed": why}
            return
        about = {"table": item.table, "medium": item.medium, "op": item.op, "block_bytes": item.block_bytes, "pages": item.pages}
        about["task_blocks"] = item.task_blocks
        self.known["cells"][item.name] = {"name": item.name, **about, "arms": {}, "failed": {"all": why}}

    def broken(self) -> list[str]:
        """What should have run anywhere and did not."""
        found = [f"{name}: {table['failed']}" for name, table in self.known["tables"].items() if "failed" in table]
        for name, cell in self.known["cells"].items():
            found += [f"{name}: {arm}: {why}" for arm, why in cell["failed"].items() if arm == "all" or not arm_of(arm).may_fail]
        return found

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.known))
        new.rename(self.path)


def missing(known: dict[str, Any]) -> list[str]:
    """What was planned and is not there, or failed as a whole."""
    there = {name for name, cell in known["cells"].items() if cell["arms"]}
    there |= {name for name, table in known["tables"].items() if "failed" not in table}
    return [name for name in known.get("planned", []) if name not in there]


def is_complete(known: dict[str, Any]) -> bool:
    return bool(known.get("planned")) and not missing(known)
