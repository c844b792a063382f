"""What a process holds, from /proc, and what a sidecar's stats say: only ever of living processes at rest, since a look at a dying one may hang."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

CLASSES = ("load", "store", "metadata")


def process(pid: int, *, lanes: bool = False) -> dict[str, int]:
    """Descriptors, threads and memory. Lanes have descriptor tables of their own: theirs are counted apart."""
    own = len(os.listdir(f"/proc/{pid}/fd"))
    threads = os.listdir(f"/proc/{pid}/task")
    found = {"fds": own, "threads": len(threads)}
    if pid == os.getpid():
        with open("/proc/self/maps") as file:
            found["arenas"] = sum("memfd:" in line for line in file)  # those of former sidecars go when the kernel is done with them
    if lanes:
        shared = _link(f"/proc/{pid}/fd/0")  # its stdin, a pipe; lanes number their own from 0 too
        folders = [f"/proc/{pid}/task/{tid}/fd" for tid in threads]
        tables = [_names(folder) for folder in folders if _link(f"{folder}/0") != shared]
        found |= {"lane_threads": len(tables), "lane_fds": sum(map(len, tables)), "lane_fds_max": max(map(len, tables), default=0)}
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(("RssAnon", "RssShmem")):
                found[line.split(":")[0].lower() + "_kib"] = int(line.split()[1])
    return found


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
