"""What a process holds, from /proc, and what a sidecar's stats say: only ever of living processes at rest, since a look at a dying one may hang.

At rest is not still: the soak's own metronome (metronome.py) opens a file of /proc 25 times a second in the very process that counts its
descriptors. So a process is looked at several times, and the least of each count is what it holds: what leaked is in every look.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

CLASSES = ("load", "store", "metadata")
LOOKS = 8
LOOK_PAUSE_S = 0.027
"""No divisor of anything that beats (the metronome looks every 40 ms): a quarter of a second in all."""
NAMED_MAX = 12

Held = dict[str, dict[str, str]]  # fds: number to link; threads: id to name; arenas: place to name


def at_rest(pid: int, *, lanes: bool = False, pause: Callable[[float], None] = time.sleep) -> tuple[dict[str, int], Held, Counter[str]]:
    """The least of each count; what it is of, in words; and the descriptors that came and went meanwhile, by kind."""
    counts: list[dict[str, int]] = []
    named: list[Held] = []
    for look in range(LOOKS):
        if look:
            pause(LOOK_PAUSE_S)
        found, held = process(pid, lanes=lanes)
        counts.append(found)
        named.append(held)
    least: Held = {name: min((held[name] for held in named), key=len) for name in named[0]}
    passing: Counter[str] = Counter()
    for held in named:
        passing += more(least["fds"], held["fds"])
    return {name: min(found[name] for found in counts) for name in counts[0]}, least, passing


def more(start: Mapping[str, str], now: Mapping[str, str]) -> Counter[str]:
    """By kind: descriptors and threads of another process, or of another time, have other numbers."""
    return Counter(map(_kind, now.values())) - Counter(map(_kind, start.values()))


def told(start: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which they may be: all of each kind of which there are more than at the start."""
    kinds = more(start, now)
    which = [f"{number} {name}" for number, name in now.items() if _kind(name) in kinds]
    rest = f" and {len(which) - NAMED_MAX} others" if len(which) > NAMED_MAX else ""
    return f"{', '.join(f'{count} more {kind}' for kind, count in kinds.items())} (of {', '.join(which[:NAMED_MAX])}{rest})"


def _kind(name: str) -> str:
    return re.sub(r"\d+", "N", name)


def process(pid: int, *, lanes: bool = False) -> tuple[dict[str, int], Held]:
    """Descriptors, threads and memory, in one look. Lanes have descriptor tables of their own: theirs are counted apart."""
    own = {number: link for number in os.listdir(f"/proc/{pid}/fd") if (link := _link(f"/proc/{pid}/fd/{number}"))}  # the look's own is gone by now
    threads = os.listdir(f"/proc/{pid}/task")
    found = {"fds": len(own), "threads": len(threads)}
    held: Held = {"fds": own, "threads": {tid: _name(pid, tid) for tid in threads}}
    if pid == os.getpid():
        with open("/proc/self/maps") as file:
            arenas = {line.split()[0]: line.split(maxsplit=5)[5].strip() for line in file if "memfd:" in line}
        found["arenas"], held["arenas"] = len(arenas), arenas  # those of former sidecars go when the kernel is done with them
    if lanes:
        shared = _link(f"/proc/{pid}/fd/0")  # its stdin, a pipe; lanes number their own from 0 too
        folders = [f"/proc/{pid}/task/{tid}/fd" for tid in threads]
        tables = [_names(folder) for folder in folders if _link(f"{folder}/0") != shared]
        found |= {"lane_threads": len(tables), "lane_fds": sum(map(len, tables)), "lane_fds_max": max(map(len, tables), default=0)}
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(("RssAnon", "RssShmem")):
                found[line.split(":")[0].lower() + "_kib"] = int(line.split()[1])
    return found, held


def _name(pid: int, tid: str) -> str:
    try:
        with open(f"/proc/{pid}/task/{tid}/comm") as file:
            return file.read().strip()
    except OSError:
        return "(it ended)"


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []  # it left meanwhile


def _link(path: str) -> str:
    """The name alone: nobody is asked who might hang."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def not_back(stats: Any) -> Iterator[str]:
    """Everything that must be nothing once the mounts answer again and nobody asks for anything."""
    for path in (("slots", "in_flight"), ("slots", "quarantined"), ("keys_gated",)):
        value: Any = stats
        for name in path:
            value = value[name]
        if value:
            yield f"{'.'.join(path)} is {value}"
    if stats["outstanding"] > 1:  # stats itself may be one
        yield f"outstanding is {stats['outstanding']}"
    for mount in stats["mounts"]:
        for name, state in mount["classes"].items():
            if state in ("suspended", "probing"):
                yield f"{mount['name']} {name} is {state}"
    for device in stats["devices"]:
        for name, group in device["classes"].items():
            for count in ("queued", "running", "lanes_stuck", "probes_stuck"):
                if group[count]:
                    yield f"{device['device']} {name} {count} is {group[count]}"


def over_caps(stats: Any, *, lanes: int, stuck_max: int) -> Iterator[str]:
    """Whatever hangs: a device has its own lanes, and as many in the place of stuck ones as --stuck-max allows."""
    for device in stats["devices"]:
        groups = device["classes"]
        threads, stuck = (sum(group[count] for group in groups.values()) for count in ("lanes", "lanes_stuck"))
        cap = len(CLASSES) * lanes + stuck_max
        if threads > cap or stuck > cap:
            yield f"device {device['device']} has {threads} lanes, {stuck} stuck; the cap is {cap}: {groups}"
