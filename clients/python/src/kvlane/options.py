"""How a client starts its sidecar and how patient it is. Everything has a default but the mounts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ._arena import SLOT_ALIGN_BYTES
from ._budget import Budgets
from ._huge_pages import HUGE_PAGES, HugePages
from ._node import NODE_PACKAGE, find_node, wanted
from .errors import InvalidArgument, StartFailed

# As the sidecar has them (sidecar/options.ts): less than a MiB is a mistake in the unit, and file systems get slow before they are full.
CAPACITY_BYTES = (1 << 20, 1 << 53)
CAPACITY_SHARE = (1, 95)


@dataclass(frozen=True)
class Options:
    """`mounts` maps a name to the directory of its store. Times are in milliseconds.

    `huge_pages`: `auto` takes what the host allows (hugetlb, else transparent ones) and says what would give more; `require`,
    `hugetlb` and `thp` fail the start where there are too few. A restart while a dead sidecar still has its arena takes
    what there is. `index_ms`: how old a look-up's hit may be that asks no lane (0, the default: none may be; the load of a block
    that another process removed meanwhile is NOT_FOUND).

    `capacity_bytes` or `capacity_share` (per cent of the file system): what the store of each mount may occupy. Beyond it the blocks
    used longest ago are removed, by one sidecar for all that share the store. Neither, the default: it grows until the disk is full.

    The last block is the client's own patience: how long a start may take, how long an interpreter may be held by `close()`,
    how often a silent sidecar is asked whether it lives while something is outstanding, and when it counts as mute.
    """

    mounts: Mapping[str, str | os.PathLike[str]]
    create: bool = False
    slot_bytes: int = 1 << 20
    slots: int = 128
    timeout_ms: int = 1000
    budgets: Budgets = field(default_factory=Budgets)
    huge_pages: HugePages = "auto"

    stall_ms: int | None = None
    engine: Literal["threads", "aio"] | None = None
    lanes: int | None = None
    index_ms: int | None = None
    capacity_bytes: int | None = None
    capacity_share: int | None = None
    stuck_max: int | None = None
    fsync: bool = False
    file_mode: int | None = None
    extra_arguments: Sequence[str] = ()

    command: Sequence[str] | None = None  # replaces `node kvlane.cjs serve`: for tests and wrappers
    node: str | None = None
    sidecar: str | os.PathLike[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    start_timeout_ms: int = 10_000
    close_timeout_ms: int = 500
    heartbeat_ms: int = 250
    mute_ms: int = 2000
    backoff_first_ms: int = 100
    backoff_max_ms: int = 5000

    def __post_init__(self) -> None:
        if not self.mounts:
            raise InvalidArgument('mounts must name at least one directory, as in {"kv0": "/mnt/kv"}')
        numbers = ("slot_bytes", "slots", "timeout_ms", "start_timeout_ms", "close_timeout_ms", "heartbeat_ms")
        for name in (*numbers, "mute_ms", "backoff_first_ms", "backoff_max_ms"):
            if getattr(self, name) <= 0:
                raise InvalidArgument(f"{name} must be above 0, got {getattr(self, name)!r}")
        if self.slot_bytes % SLOT_ALIGN_BYTES:
            raise InvalidArgument(f"slot_bytes must be a multiple of {SLOT_ALIGN_BYTES}, got {self.slot_bytes}")
        if self.huge_pages not in HUGE_PAGES:
            raise InvalidArgument(f"huge_pages must be one of {', '.join(map(repr, HUGE_PAGES))}, got {self.huge_pages!r}")
        if self.capacity_bytes is not None and self.capacity_share is not None:
            raise InvalidArgument("capacity_bytes and capacity_share exclude each other: one limit of a store is wanted")
        limits = {"capacity_bytes": CAPACITY_BYTES, "capacity_share": CAPACITY_SHARE}
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value <= most):
                raise InvalidArgument(f"{name} must be a whole number from {least} to {most}, got {value!r}")
        if self.mute_ms < 2 * self.heartbeat_ms:
            raise InvalidArgument("mute_ms must be at least two heartbeats, or one late ping looks like a death")

    def argv(self, arena_fd: int) -> list[str]:
        """The whole command line of the sidecar."""
        command = list(self.command) if self.command is not None else [self._node(), str(self._main_js()), *self._recorder(), "serve"]
        for name, root in self.mounts.items():
            # Made absolute by text alone: the sidecar runs in /, and a look at the path could hang.
            command += ["--mount", f"{name}={os.path.abspath(root)}"]
        command += ["--arena-fd", str(arena_fd), "--slot-bytes", str(self.slot_bytes)]
        command += ["--huge-pages", self.huge_pages, "--timeout-ms", str(self.timeout_ms)]
        numbers = {"stall-ms": self.stall_ms, "lanes": self.lanes, "index-ms": self.index_ms, "stuck-max": self.stuck_max, "engine": self.engine}
        capacity = {"capacity-bytes": self.capacity_bytes, "capacity-share": self.capacity_share}
        for option, value in {**numbers, **capacity}.items():
            if value is not None:
                command += [f"--{option}", str(value)]
        if self.file_mode is not None:
            command += ["--file-mode", f"{self.file_mode:04o}"]
        command += ["--create"] * self.create + ["--fsync"] * self.fsync
        return [*command, *self.extra_arguments]

    def env(self) -> dict[str, str]:
        """Small and explicit: an inherited NODE_OPTIONS or LD_PRELOAD would make another program of the sidecar."""
        kept = {name: value for name, value in os.environ.items() if name.startswith("KVLANE_")}
        base = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        return {**base, **kept, **self.environment}

    def _recorder(self) -> list[str]:
        """`kvlane record` between us and the sidecar, if the environment asks for it: a bug report needs no change of an engine's options."""
        file = os.environ.get("KVLANE_RECORD")
        return ["record", os.path.abspath(file), "--"] if file else []

    def _node(self) -> str:
        named = self.node or os.environ.get("KVLANE_NODE")
        return named or node_path()

    def _main_js(self) -> Path:
        return main_js(self.sidecar or os.environ.get("KVLANE_SIDECAR"))


def node_path() -> str:
    """Where node is, when nobody named it; raises StartFailed with everything that was looked at."""
    node, looked = find_node()
    if node is None:
        raise StartFailed(
            f"no node binary: Options.node and $KVLANE_NODE name none, {', '.join(looked)}; "
            f"{wanted()} is needed, `pip install {NODE_PACKAGE}` brings one",
            code="NODE_NOT_FOUND",
        )
    return node


def main_js(asked: str | os.PathLike[str] | None = None) -> Path:
    """The script that is the sidecar: what was asked for, else the one inside the installed package, else the checkout's."""
    here = Path(__file__).resolve()
    packaged = here.parent / "_sidecar" / "dist" / "kvlane.cjs"
    # src/kvlane/options.py → clients/python → the checkout; an installed package has no such parent.
    checkout = here.parents[4] / "dist" / "kvlane.cjs" if len(here.parents) > 4 else packaged
    tried = [Path(asked)] if asked else [packaged, checkout]
    for path in tried:
        if path.is_file():
            return path.absolute()
    raise StartFailed(
        "no sidecar to start: looked for " + ", ".join(map(str, tried)) + "; build it with `npm run build`, "
        "or say where its kvlane.cjs is with Options.sidecar or $KVLANE_SIDECAR",
        code="SIDECAR_NOT_FOUND",
    )
