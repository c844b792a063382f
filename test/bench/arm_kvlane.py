"""The product, through its Python client: a sidecar of its own, slots leased and released for each task, as an engine does it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from kvlane import Budgets, Client, Options, Slot, Task, __version__

import worker_loop

NAMESPACE = "bench"
TIMEOUT_MS = 30_000
FILL_BLOCKS = 64
STUCK_MS = 55_000  # the stall lab lets go after 60 s
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STICK_S_MAX = 20.0  # eight lanes, replaced after 20 ms: some seconds for a thousand


def name_of(block: int) -> str:
    """32 hex digits; the first two, which choose the folder, differ from block to block."""
    return f"{block * 0x9E3779B1 & 0xFFFFFFFF:08x}{block:024x}"


def cpu_clock(pid: int) -> int:
    """The CPU clock of another process, in ns steps; threads that have ended count too."""
    return (~pid << 3) | 2


class Kvlane:
    def __init__(self, config: dict[str, Any]) -> None:
        self._op, self._bytes, self._root = config["op"], config["block_bytes"] or 4096, Path(config["dir"])
        self._count = config["count"]
        # Of loads they are made beforehand, as an engine has its hashes: to make one takes as long as all that the client does for a block.
        self._names = [name_of(b) for b in range(self._count)] if self._op == "load" else []
        options: dict[str, Any] = {"huge_pages": "hugetlb" if config["pages"] == "huge" else "off", **config.get("options", {})}
        slots = max(config["arena_bytes"] // self._bytes, 1) + config.get("more_slots", 0)
        self._at_once = min(FILL_BLOCKS, slots)
        self._stuck: list[Any] = []  # held, so that they are not collected
        self.kv = Client(
            Options(
                mounts={"kv0": self._root, **config.get("mounts", {})},
                create=True,
                slot_bytes=self._bytes,
                slots=slots,
                lanes=config["threads"],
                budgets=Budgets(others_max=1, load_reserve=0, other_reserve=0),
                timeout_ms=TIMEOUT_MS,
                **options,
            )
        )
        self.kv.wait_ready()
        self._fill_memory()
        ready = self.kv.ready or {}
        arena = ready.get("arena", {})
        if (config["pages"] == "huge") != (arena.get("page_bytes", 0) > 4096):
            raise RuntimeError(f"{config['pages']} pages were asked for, the arena is {arena}")
        self._refuse_page_cache(config.get("direct", True))
        engine = options.get("engine", "threads")
        if ready.get("engine") != engine:
            raise RuntimeError(f"engine {engine} was asked for, it is {ready.get('engine')}")
        self.facts = {
            "version": __version__,
            "engine": engine,
            "pages": f"{arena.get('backing')}, {arena.get('page_bytes', 0) // 1024} KiB",
            "mounts": ready.get("mounts"),
            "pid": self.kv.pid,
        }
        assert self.kv.pid is not None
        self._sidecar = cpu_clock(self.kv.pid)

    def _refuse_page_cache(self, direct: bool) -> None:
        end = time.monotonic() + TIMEOUT_MS / 1000
        mount: dict[str, Any] = {}
        while "direct" not in mount:  # it may answer later than `ready` is sent
            if time.monotonic() > end:
                raise RuntimeError(f"the mount says {mount}")
            [mount] = [dict(mount) for mount in self.kv.stats()["mounts"] if mount["name"] == "kv0"]
        if direct and not mount["direct"]:
            raise RuntimeError(f"the store at {self._root} is without O_DIRECT: its figures would be those of the page cache")

    def _fill_memory(self) -> None:
        """Every page of the arena is there before the clock runs, with bytes that do not compress."""
        piece = os.urandom(1 << 20)
        whole = self.kv.arena_view()
        for at in range(0, len(whole), len(piece)):
            end = min(at + len(piece), len(whole))
            whole[at:end] = piece[: end - at]

    def begin(self, blocks: list[int]) -> tuple[Task[Any], list[Slot]]:
        if self._op == "lookup":  # every other name is absent
            keys = [name_of(b // 2 + (self._count if b % 2 else 0)) for b in blocks]
            return self.kv.lookup(keys, namespace=NAMESPACE, mount="kv0"), []
        if self._op == "load":
            keys = [self._names[b] for b in blocks]
            slots = self.kv.lease(len(keys), mount="kv0", use="load")
            return self.kv.load(keys, slots, namespace=NAMESPACE, mount="kv0"), slots
        keys = [name_of(b) for b in blocks]
        slots = self.kv.lease(len(keys), mount="kv0", use="store")
        return self.kv.store(keys, slots, namespace=NAMESPACE, mount="kv0", replace=self._op == "replace"), slots

    def end(self, handle: tuple[Task[Any], list[Slot]]) -> None:
        task, slots = handle
        result = self.kv.wait(task)
        result.check()
        if self._op == "lookup" and (not result.complete or result.present[:2] != (True, False)):
            raise RuntimeError(f"the look-up says {result.present[:2]}, complete {result.complete}")
        if self._op == "new" and result.kept:
            raise RuntimeError(f"{result.kept} of the new blocks were there already")
        self.kv.release(slots)

    def fill(self, first: int, count: int) -> None:
        if self._op == "lookup":
            return self._touch(first, count)
        for at in range(first, first + count, self._at_once):
            keys = [name_of(b) for b in range(at, min(at + self._at_once, first + count))]
            with self.kv.leasing(len(keys), mount="kv0", use="store") as slots:
                self.kv.wait(self.kv.store(keys, slots, namespace=NAMESPACE, mount="kv0")).check()
        return None

    def _touch(self, first: int, count: int) -> None:
        """Files in the blocks' places, one long hole each: all that a look-up looks at is that they are there and not empty."""
        for block in range(first, first + count):
            path = self._path(block)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(2 * 4096)

    def clean(self, first: int, count: int) -> None:
        for block in range(first, first + count):
            self._path(block).unlink(missing_ok=True)

    def _path(self, block: int) -> Path:
        name = name_of(block)
        return self._root / "blocks" / NAMESPACE / name[:2] / f"{name}.kvb"

    def stick(self, n: int) -> dict[str, Any]:
        """n loads on the mount called sick, which hangs by now; comes back when the sidecar has them all in the kernel."""
        before = self.memory_kib()
        for _ in range(n):
            [slot] = self.kv.lease(1, mount="sick")
            self._stuck.append((self.kv.load([name_of(0)], [slot], namespace=NAMESPACE, mount="sick", bytes=4096, timeout_ms=STUCK_MS), slot))
        end = time.monotonic() + STICK_S_MAX
        while len(self.kv.stuck(5000)) < n:
            if time.monotonic() > end:
                raise TimeoutError(f"after {STICK_S_MAX} s {len(self.kv.stuck(5000))} of {n} are in the kernel")
            time.sleep(0.05)
        after = self.memory_kib()
        return {name: after[name] - before[name] for name in after}

    def fill_sick(self, n: int) -> None:
        """The one block that they will all want."""
        [slot] = self.kv.lease(1, mount="sick", use="store")
        self.kv.wait(self.kv.store([name_of(0)], [slot], namespace=NAMESPACE, mount="sick", bytes=4096)).check()
        slot.release()

    def memory_kib(self) -> dict[str, int]:
        """Of the sidecar, without the arena; a thread's kernel stack is 16 KiB."""
        said = dict(line.split(":", 1) for line in Path(f"/proc/{self.kv.pid}/status").read_text().splitlines())
        kib = {name: int(said[name].split()[0]) for name in ("VmRSS", "RssShmem", "VmPTE", "Threads")}
        return {"resident": kib["VmRSS"] - kib["RssShmem"], "page_tables": kib["VmPTE"], "kernel_stacks": 16 * kib["Threads"]}

    def profile(self) -> dict[str, float]:
        """CPU seconds until now, by thread and by side (of a system call): of this process, and of the sidecar."""
        spent = os.times()
        found = {"client, user": spent.user, "client, kernel": spent.system}
        for task in Path(f"/proc/{self.kv.pid}/task").iterdir():
            name, _, words = (task / "stat").read_text().partition("(")[2].rpartition(")")
            name = "main" if task.name == str(self.kv.pid) else name.rstrip("0123456789")
            user, kernel = (int(word) / TICKS_PER_S for word in words.split()[11:13])
            for side, seconds in (("user", user), ("kernel", kernel)):
                found[f"{name}, {side}"] = found.get(f"{name}, {side}", 0.0) + seconds
        return found

    def cpu_s(self) -> float:
        return time.process_time() + time.clock_gettime(self._sidecar)

    def close(self) -> None:
        self.kv.close()


if __name__ == "__main__":
    worker_loop.main(Kvlane)
