"""NIXL's POSIX plugin: a transfer for each task, files opened and registered for it. It has no names of its own: a store writes
the file in place, without a temporary name and a rename, which is less than the others do. Its state has to be polled."""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from typing import Any

import worker_loop
from arm_peer import Peer

POLL_S = 20e-6  # between two questions whether it is done; polling without a pause takes a core
TASK_S_MAX = 30.0


class Nixl(Peer):
    def __init__(self, config: dict[str, Any]) -> None:
        os.environ.setdefault("NIXL_LOG_LEVEL", "WARN")
        from nixl_cu12._api import nixl_agent, nixl_agent_config

        super().__init__(config)
        self._agent = nixl_agent("bench", nixl_agent_config(backends=[]))
        self._agent.create_backend("POSIX", {config["api"]: "true"})
        self._agent.register_memory([(self.address, self.size, 0, "")], "DRAM", ["POSIX"])
        self._flags = {
            "load": os.O_RDONLY,
            "new": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
            "replace": os.O_WRONLY,
        }[self.op]
        self.facts = {"version": version("nixl-cu12"), "pages": self.pages, "api": config["api"]}

    def begin(self, blocks: list[int]) -> Any:
        agent = self._agent
        fds = [os.open(self.path(block), self._flags | os.O_DIRECT, 0o600) for block in blocks]
        files = agent.register_memory([(0, self.bytes, fd, "") for fd in fds], "FILE", ["POSIX"])
        local = agent.get_xfer_descs([(self.address + self.slot(), self.bytes, 0) for _ in fds], "DRAM")
        handle = agent.initialize_xfer("READ" if self.op == "load" else "WRITE", local, files.trim(), "bench", backends=["POSIX"])
        return handle, files, fds, agent.transfer(handle)

    def end(self, task: Any) -> None:
        handle, files, fds, state = task
        until = time.monotonic() + TASK_S_MAX
        while state == "PROC" and time.monotonic() < until:
            time.sleep(POLL_S)
            state = self._agent.check_xfer_state(handle)
        if state != "DONE":
            raise RuntimeError(f"the transfer of {len(fds)} blocks ended as {state}")
        self._agent.release_xfer_handle(handle)
        self._agent.deregister_memory(files, ["POSIX"])
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    worker_loop.main(Nixl)
