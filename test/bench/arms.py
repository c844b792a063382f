"""Who takes part: a name → the process that does it, and in which of a medium's folders its files are.

Arms that read the same plain files share them. A name that ends in ~ is the same arm once more: the A/A that shows the noise.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fio import Fio
from worker import Worker

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
FLOOR = HERE / "build" / "floor"
PEERS_PYTHON = CHECKOUT / ".venv-bench" / "bin" / "python"
VLLM = Path(os.environ.get("KVLANE_BENCH_VLLM", CHECKOUT / ".venv-vllm"))  # by test/vllm/setup.sh: whoever wants torch borrows it here

Config = dict[str, Any]


class Running(Protocol):
    facts: dict[str, Any]

    def start_slice(self, seconds: float, blocks_max: int, first: int, seed: int) -> None: ...
    def end_slice(self, seconds: float) -> dict[str, Any]: ...
    def fill(self, first: int, count: int) -> None: ...
    def clean(self, first: int, count: int) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Arm:
    about: str
    start: Callable[[Config], Running]
    files: str = ""  # the folder; its own name if empty
    pages: tuple[str, ...] = ("huge", "4k")  # the memory it can have
    ops: tuple[str, ...] = ("load", "new", "again", "lookup")
    process_each_slice: bool = False  # its start is not counted anyway
    profiled: bool = False  # can say which of its threads the CPU time went to
    package: str = ""  # a peer: what pip was asked for
    may_fail: bool = False  # others' code, or what a host may forbid: it is listed, and no fault of ours
    start_s: float = 1.0  # about, on two cores: for the plan that is printed
    slice_more_s: float = 0.06  # the same: what a slice takes beside its own time


FLOOR_WORDS = ("op", "dir", "count", "block_bytes", "task_blocks", "tasks", "threads", "arena_bytes")


def floor(ops: Mapping[str, str], **options: int) -> Callable[[Config], Running]:
    def start(config: Config) -> Running:
        given = {**config, "op": ops.get(config["op"], config["op"])}
        words = {name: given[name] for name in FLOOR_WORDS}
        words |= {"huge": int(config["pages"] == "huge"), **options}
        return Worker([str(FLOOR), *(f"{name}={value}" for name, value in words.items())])

    return start


def python(script: str, interpreter: str = sys.executable, **extra: Any) -> Callable[[Config], Running]:
    def start(config: Config) -> Running:
        given = {**config, **extra, "op": "replace" if config["op"] == "again" else config["op"]}
        env = {**os.environ, "PYTHONPATH": str(CHECKOUT / "clients" / "python" / "src")}
        if interpreter != sys.executable:
            env["LD_LIBRARY_PATH"] = torch_libraries()
        return Worker([interpreter, str(HERE / script), json.dumps(given)], env)

    return start


def torch_libraries() -> str:
    """Where LMCache's module finds torch's."""
    return next((str(path) for path in VLLM.glob("lib/python3*/site-packages/torch/lib")), "")


def node(config: Config) -> Running:
    given = {**config, "op": "replace" if config["op"] == "again" else config["op"]}
    return Worker([shutil.which("node") or "node", str(HERE / "arm_node.mjs"), json.dumps(given)])


def peer(script: str, **extra: Any) -> Callable[[Config], Running]:
    return python(script, str(PEERS_PYTHON), **extra)


def kvlane(pages: str = "", **options: Any) -> Callable[[Config], Running]:
    return python("arm_kvlane.py", options=options, **({"pages": pages} if pages else {}))


def fio(engine: str) -> Callable[[Config], Running]:
    return lambda config: Fio(engine, config)


SPREAD = {"spread": 1}
VERIFY = {"header": 1, "xxh3": 1}

EACH_SLICE: dict[str, Any] = {"ops": ("load", "again"), "process_each_slice": True, "start_s": 0.5, "slice_more_s": 0.45}
NIXL: dict[str, Any] = {"files": "plain", "ops": ("load", "new", "again"), "package": "nixl-cu12", "may_fail": True}

ARMS: dict[str, Arm] = {
    "kvlane": Arm("the product through its Python client, engine threads", kvlane(), "kvlane", profiled=True),
    "kvlane-aio": Arm("the same, engine aio", kvlane(engine="aio"), "kvlane"),
    "kvlane-unchecked": Arm("the same as kvlane, with no checksum made or compared", kvlane(extra_arguments=["--test-unchecked"])),
    "kvlane-made-anew": Arm("the same, a new file for each block", kvlane(extra_arguments=["--recycle", "off"]), ops=("again",)),
    "kvlane-indexed": Arm("the same, and look-ups know what was there within a minute", kvlane(extra_arguments=["--index-ms", "60000"])),
    "kvlane-4k": Arm("the same on 4 KiB pages, as it comes: loads by way of private huge pages", kvlane(pages="4k"), "kvlane"),
    "kvlane-4k-direct": Arm(
        "the same on 4 KiB pages, straight into the arena", kvlane(pages="4k", extra_arguments=["--bounce", "none"]), "kvlane"
    ),
    "kvlane-4k-bounced": Arm(
        "the same on 4 KiB pages, stores too by way of private huge pages", kvlane(pages="4k", extra_arguments=["--bounce", "all"])
    ),
    "floor": Arm("C++ preadv/pwritev, open and close for each block; new names by rename", floor({}, spread=0), "plain", ops=("load",)),
    "floor-4k": Arm("the floor on 4 KiB pages", floor({}, spread=0, huge=0), "plain", ops=("load",)),
    "floor-verify": Arm("the floor, with a header page and XXH3", floor({}, **VERIFY), "headed", ops=("load",)),
    "floor-overwrite": Arm("C++ pwritev over the old bytes", floor({"again": "overwrite"}), "plain", ops=("again",)),
    "floor-recycle": Arm("C++ rename, pwritev, rename", floor({"again": "recycle"}, **SPREAD), ops=("again",)),
    "floor-recycle-verify": Arm("the same with a header page and XXH3", floor({"again": "recycle"}, **SPREAD, **VERIFY), ops=("again",)),
    "floor-replace": Arm("C++ new file, rename over the old one", floor({"again": "replace"}, **SPREAD), ops=("again",)),
    "floor-new": Arm("C++ new file, pwritev, rename", floor({}, **SPREAD), ops=("new",)),
    "floor-new-verify": Arm("the same with a header page and XXH3", floor({}, **SPREAD, **VERIFY), ops=("new",)),
    "floor-lookup": Arm("C++ faccessat in as many threads", floor({}, **SPREAD), ops=("lookup",)),
    "fio-psync": Arm("fio, psync, a job for each thread", fio("psync"), "plain", **EACH_SLICE),
    "fio-libaio": Arm("fio, libaio, 16 in flight", fio("libaio"), "plain", **EACH_SLICE),
    "fio-io_uring": Arm("fio, io_uring, 16 in flight", fio("io_uring"), "plain", may_fail=True, **EACH_SLICE),
    "threads": Arm("Python threads, os.preadv, temporary name and rename", python("arm_threads.py"), "threads"),
    "node": Arm("Node fs.promises, temporary name and rename", node, "node", pages=("4k",)),
    "nixl-aio": Arm("NIXL's POSIX plugin, use_aio; it stores in place, without a rename", peer("arm_nixl.py", api="use_aio"), **NIXL),
    "nixl-uring": Arm("the same, use_uring", peer("arm_nixl.py", api="use_uring"), **NIXL),
    "lmcache-fs": Arm("LMCache's native file connector, O_DIRECT", peer("arm_lmcache.py"), "lmcache", package="lmcache", may_fail=True),
    "lmcache-disk": Arm(
        "LMCache's LocalDiskBackend, O_DIRECT",
        python("arm_lmcache_disk.py", str(VLLM / "bin" / "python")),
        "lmcache-disk",
        ops=("load", "new"),
        package="lmcache",
        may_fail=True,
        start_s=9.0,
    ),
}


def why_absent(arm: Arm) -> str:
    """What pip said when a peer's package did not install, or that there is no torch to borrow; empty if neither is so."""
    if not arm.package:
        return ""
    log = PEERS_PYTHON.parents[1] / "failed" / f"{arm.package}.log"
    if log.exists():
        return f"{arm.package} did not install: {log.read_text().strip()}"
    if not PEERS_PYTHON.exists():
        return f"there is no {PEERS_PYTHON.parents[1]}: test/bench/peers.sh makes it"
    if arm.package == "lmcache" and not torch_libraries():
        return f"LMCache wants torch, and there is none in {VLLM}: test/vllm/setup.sh makes it, as a --full run does"
    return ""


def arm_of(name: str) -> Arm:
    plain = name.rstrip("~")
    if plain not in ARMS:
        raise ValueError(f"no arm {plain!r}; there are {', '.join(ARMS)}")
    return ARMS[plain]
