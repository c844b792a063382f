"""The table at the end, the same as JSON, and what is kept of a run that went wrong."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from main import Soak

SHOWN = 12
NEAR_US = 2_500_000


def quantile(sorted_values: list[int], share: float) -> int:
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))] if sorted_values else 0


def spread(values: list[int]) -> dict[str, int]:
    over = sorted(values)
    return {"answers": len(over), "p50": quantile(over, 0.5), "p99": quantile(over, 0.99), "max": quantile(over, 1)}


def figures(soak: Soak, options: argparse.Namespace) -> dict[str, Any]:
    f = soak.figures
    client: Counter[str] = Counter()
    for name, value in f.client.items():
        client[name.split(" of ")[0]] += value
    kinds = Counter(violation.kind for violation in soak.found)
    return {
        "seed": options.seed,
        "engine": options.engine,
        "seconds": round(f.seconds, 1),
        "rounds": f.rounds,
        "operations": dict(f.ops.most_common()),
        "blocks answered, by code": dict(f.codes.most_common()),
        "faults": dict(sorted(soak.faults.counts.items())) if hasattr(soak, "faults") else {},
        "processes": dict(soak.counts),
        "client": dict(client),
        "looked at": {"loads whose bytes were compared": f.counted["loaded"], "of them had to hit": soak.model.had_to_hit, "canaries": f.counted["canaries"]},
        "misses without a fault near": dict(soak.model.unexplained),
        "overshoot of deadlines, us": spread(f.overshoot_us) | {"early": f.late["early"]},
        "the same, nobody stopped": spread(f.unharmed_us),
        "deadlines": dict(f.late),
        "most beyond the start, at rest": f.most,
        "descriptors that came and went": dict(f.passing.most_common(6)),
        "leftovers": dict(f.leftovers),
        "wrong bytes": kinds["wrong bytes"] + kinds["late bytes in leased memory"] + kinds["wrong version"] + kinds["stale"] + kinds["stored though refused"],
        "lost answers": kinds["lost answer"],
        "violations": dict(kinds),
    }


def table(found: dict[str, Any]) -> None:
    for name, value in found.items():
        if isinstance(value, dict):
            cells = [f"{word} {count}" for word, count in value.items()] or ["none"]
            lines: list[str] = []
            line = ""
            for cell in cells:
                if len(line) + len(cell) > 110:
                    lines, line = [*lines, line], ""
                line += (" · " if line else "") + cell
            print(f"  {name:32} {lines[0] if lines else line}")
            for more in [*lines[1:], *([line] if lines else [])]:
                print(f"  {'':32} {more}")
        else:
            print(f"  {name:32} {value}")


def tell(soak: Soak, options: argparse.Namespace) -> int:
    found = figures(soak, options)
    table(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.keep and not soak.found:
        keep(soak, options, found)
    if options.plant:
        kinds = sorted(soak.plant.found_as) if soak.plant else []
        seen = soak.has_found_plant()
        for violation in [v for v in soak.found if v.kind in kinds][:1] if seen else soak.found[:SHOWN]:
            print(f"\nwrong: {violation.kind}: {violation.text}")
        said = f"was found after {found['seconds']} s" if seen else f"was NOT found in {found['seconds']} s as {kinds}"
        print(f"chaos: the planted fault '{options.plant}' {said}, seed {options.seed}: {found['violations']}")
        return 0 if seen else 1
    if not soak.found:
        print(f"chaos: nothing wrong in {found['seconds']} s, seed {options.seed}")
        return 0
    for violation in soak.found[:SHOWN]:
        print(f"\nwrong: {violation.kind}: {violation.text}")
    keep(soak, options, found)
    print(f"chaos: {len(soak.found)} wrong, seed {options.seed}: {found['violations']}")
    return 1


def keep(soak: Soak, options: argparse.Namespace, found: dict[str, Any]) -> None:
    first = soak.found[0].at_us if soak.found else 0
    near = [line for line in soak.faults.history if abs(int(line.split()[0]) - first) < NEAR_US] if hasattr(soak, "faults") else []
    if near:
        print("\nfaults near the first one:", *near, sep="\n  ")
    directory: Path = options.keep or Path(tempfile.mkdtemp(prefix="kvlane-chaos-", dir=os.environ.get("KVLANE_CHAOS_KEPT")))
    directory.mkdir(parents=True, exist_ok=True)
    for path in soak.directory.iterdir():
        shutil.copy(path, directory)
    (directory / "faults.txt").write_text("\n".join(soak.faults.history if hasattr(soak, "faults") else []) + "\n", encoding="utf-8")
    (directory / "wrong.txt").write_text("\n".join(f"{v.at_us} us {v.kind}: {v.text}" for v in soak.found) + "\n", encoding="utf-8")
    (directory / "figures.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"logs of all clients and sidecars: {directory}")
