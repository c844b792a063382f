"""LMCache's file-system back end in C++ (fs_native), with O_DIRECT: LMCacheFSClient, the object below its storage manager.

Loaded by its file: the package around it imports all of torch. The module itself names four of torch's libraries, which the loader
finds in $LD_LIBRARY_PATH (arms.py puts the folder there that it found).
"""

from __future__ import annotations

import importlib.util
import os
import select
from importlib.metadata import distribution, version
from typing import Any

import worker_loop
from arm_peer import Peer

TASK_S_MAX = 30.0


def client_class() -> Any:
    found = [file for file in distribution("lmcache").files or [] if file.name.startswith("lmcache_fs.")]
    if not found:
        raise ImportError(f"lmcache {version('lmcache')} carries no lmcache_fs")
    spec = importlib.util.spec_from_file_location("lmcache.lmcache_fs", str(found[0].locate()))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LMCacheFSClient


class LMCache(Peer):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._client = client_class()(self.dir, self.threads, "", True, 0)
        self._done: dict[int, tuple[bool, str]] = {}
        self.facts = {"version": version("lmcache"), "pages": self.pages}

    def _name(self, block: int) -> str:
        return f"bench@1@0@{block:016x}"

    def begin(self, blocks: list[int]) -> int:
        names = [self._name(block) for block in blocks]
        views = [self.view[at : at + self.bytes] for at in (self.slot() for _ in blocks)]
        submit = self._client.submit_batch_get if self.op == "load" else self._client.submit_batch_set
        return int(submit(names, views))

    def end(self, task: int) -> None:
        while task not in self._done:
            if not select.select([self._client.event_fd()], [], [], TASK_S_MAX)[0]:
                raise RuntimeError(f"no answer in {TASK_S_MAX:.0f} s")
            for number, ok, error, *_ in self._client.drain_completions():
                self._done[int(number)] = (ok, error)
        ok, error = self._done.pop(task)
        if not ok:
            raise RuntimeError(str(error))

    def fill(self, first: int, count: int) -> None:
        for at in range(first, first + count, 16):
            blocks = range(at, min(at + 16, first + count))
            views = [self.view[s : s + self.bytes] for s in (self.slot() for _ in blocks)]
            self.end(int(self._client.submit_batch_set([self._name(b) for b in blocks], views)))

    def clean(self, first: int, count: int) -> None:
        wanted = {f"{block:016x}" for block in range(first, first + count)}
        for folder, _, names in os.walk(self.dir):
            for name in names:
                if any(part in wanted for part in name.replace(".", "@").split("@")):
                    os.unlink(os.path.join(folder, name))

    def close(self) -> None:
        self._client.close()


if __name__ == "__main__":
    worker_loop.main(LMCache)
