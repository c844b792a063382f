"""LMCache's LocalDiskBackend, O_DIRECT, threads as all: the object itself, with a memory allocator of ours, so that its bytes lie on the
same pages as everybody's. It wants torch in the process, so it runs in the Python of test/vllm/setup.sh's vLLM, with LMCache from
.venv-bench behind it. A block that is there is not stored again: it has no replace."""

from __future__ import annotations

import asyncio
import glob
import itertools
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import worker_loop
from arm_peer import Peer

TASK_S_MAX = 30.0
HERE = os.path.dirname(os.path.abspath(__file__))


def find_lmcache() -> str:
    """Behind everything else: torch and numpy are those of the interpreter. Returns the version."""
    folders = glob.glob(os.path.join(HERE, "..", "..", ".venv-bench", "lib", "python3*", "site-packages"))
    sys.path += folders
    from importlib.metadata import version

    return version("lmcache")


class LocalDisk(Peer):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        found = find_lmcache()
        os.environ.setdefault("LMCACHE_LOG_LEVEL", "ERROR")
        import torch
        from lmcache.utils import CacheEngineKey
        from lmcache.v1.config import LMCacheEngineConfig
        from lmcache.v1.memory_management import MemoryFormat, MemoryObjMetadata, TensorMemoryObj
        from lmcache.v1.storage_backend.local_disk_backend import LocalDiskBackend

        self._shape, self._type, self._format = torch.Size([self.bytes]), torch.uint8, MemoryFormat.BINARY
        self._whole: Any = torch.frombuffer(self.view, dtype=torch.uint8)
        self._metadata_class, self._memory_class = MemoryObjMetadata, TensorMemoryObj
        self._key_class = CacheEngineKey
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        settings = LMCacheEngineConfig.from_defaults(
            local_cpu=False,
            local_disk=self.dir,
            max_local_disk_size=64.0,
            extra_config={"use_odirect": True, "disk_io_threads": self.threads},
        )
        self._backend = LocalDiskBackend(settings, self._loop, self, "cpu")
        self._readers = ThreadPoolExecutor(config["tasks"])  # its load of many blocks is one call that waits
        self.facts = {"version": found, "torch": torch.__version__, "pages": self.pages}

    def allocate(self, shape: Any, dtype: Any, fmt: Any, **_: Any) -> Any:
        """What the backend asks its CPU backend for."""
        at = self.slot()
        metadata = self._metadata_class(self._shape, self._type, at, self.bytes, 1, fmt=self._format)
        return self._memory_class(self._whole[at : at + self.bytes], metadata, None)

    def _key(self, block: int) -> Any:
        return self._key_class("bench", 1, 0, block, self._type)

    def begin(self, blocks: list[int]) -> Future[Any]:
        keys = [self._key(block) for block in blocks]
        if self.op == "load":
            return self._readers.submit(self._backend.batched_get_blocking, keys)
        done: Future[Any] = Future()
        left = itertools.count(len(keys) - 1, -1)
        for key in keys:
            self._backend.submit_put_task(key, self.allocate(None, None, None), lambda _: done.set_result([1]) if next(left) == 0 else None)
        return done

    def end(self, task: Future[Any]) -> None:
        found = task.result(TASK_S_MAX)
        if any(memory is None for memory in found):
            raise RuntimeError("a block did not come back")

    def fill(self, first: int, count: int) -> None:
        op, self.op = self.op, "new"
        for at in range(first, first + count, 16):
            self.end(self.begin(list(range(at, min(at + 16, first + count)))))
        self.op = op

    def clean(self, first: int, count: int) -> None:
        for block in range(first, first + count):
            self._backend.remove(self._key(block))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


if __name__ == "__main__":
    worker_loop.main(LocalDisk)
