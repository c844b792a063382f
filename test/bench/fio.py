"""fio as an arm. A process for each slice; only its own running time counts, not its start.

Three traps, each of which gave wrong numbers once: several jobs over one `filename_format` silently run as one, so each job
is a section of its own; its buffers are on 4 KiB pages unless `--mem=mmaphuge`; and it refills a write's buffers, which is
its own cost and not the file system's. It keeps its files open, which makes it a little better than open and close for each block.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from worker import QUIT_S, SPARE_S, ArmFailed

ENGINES = ("psync", "libaio", "io_uring")
QUEUE_DEPTH = 16  # libaio and io_uring: one job, so many in flight
HUGE_BYTES = 2 << 20


class Fio:
    def __init__(self, engine: str, config: dict[str, Any]) -> None:
        self._config = config
        self._engine = engine
        self._process: subprocess.Popen[bytes] | None = None
        self.facts = {"pages": "hugetlb" if config["pages"] == "huge" else "4 KiB", "jobs": self._jobs(), "depth": self._depth()}

    def _jobs(self) -> int:
        return int(self._config["threads"]) if self._engine == "psync" else 1

    def _depth(self) -> int:
        return 1 if self._engine == "psync" else QUEUE_DEPTH

    def _command(self, seconds: float) -> list[str]:
        c = self._config
        bytes_, count = c["block_bytes"], c["count"]
        common = {
            "directory": c["dir"],
            "filename_format": "f.$filenum",
            "nrfiles": count,
            "filesize": bytes_,
            "size": bytes_ * count,
            "bs": bytes_,
            "ioengine": self._engine,
            "iodepth": self._depth(),
            "direct": 1,
            # overwriting goes from file to file, as the other arms do it; at random it is a tenth to a fifth slower
            "rw": "randread" if c["op"] == "load" else "write",
            "norandommap": 1,
            "file_service_type": "random" if c["op"] == "load" else "roundrobin",
            "overwrite": int(c["op"] != "load"),
            "fallocate": "none",
            "scramble_buffers": 0,
            "time_based": 1,
            "runtime": f"{int(seconds * 1000)}ms",
            "mem": "mmaphuge" if c["pages"] == "huge" else "mmap",
            "iomem_align": 4096,
            "randrepeat": 0,
        }
        options = [f"--{name}={value}" for name, value in common.items()]
        command = ["fio", "--output-format=json"]
        for job in range(self._jobs()):  # trap 1
            command += [f"--name=job{job}", *options]
        return command

    def start_slice(self, seconds: float, blocks_max: int, first: int, seed: int) -> None:
        self._process = subprocess.Popen(
            self._command(seconds), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )

    def end_slice(self, seconds: float) -> dict[str, Any]:
        process, self._process = self._process, None
        assert process is not None
        try:
            out, err = process.communicate(timeout=seconds + SPARE_S)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            raise ArmFailed("fio did not end in time") from None
        text = out.decode()
        if process.returncode or "{" not in text:
            raise ArmFailed(f"fio, status {process.returncode}: {(err.decode() + text).strip()[-300:]}")
        return read_report(json.loads(text[text.index("{") :]), self._jobs())

    def fill(self, first: int, count: int) -> None:
        memory = mmap.mmap(-1, self._config["block_bytes"])  # O_DIRECT wants it on a page; nothing stays in the page cache
        for block in range(first, first + count):
            memory[:] = os.urandom(len(memory))
            fd = os.open(Path(self._config["dir"]) / f"f.{block}", os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
            try:
                os.write(fd, memory)
            finally:
                os.close(fd)

    def clean(self, first: int, count: int) -> None:
        raise ArmFailed("fio makes no new names here")

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(QUIT_S)


def read_report(report: dict[str, Any], jobs_wanted: int) -> dict[str, Any]:
    jobs = report["jobs"]
    if len(jobs) != jobs_wanted:
        raise ArmFailed(f"{jobs_wanted} jobs were asked for, fio ran {len(jobs)}")
    units = bytes_ = 0
    cpu_s = seconds = 0.0
    p99_us = []
    for job in jobs:
        side = job["read"] if job["read"]["total_ios"] else job["write"]
        units += side["total_ios"]
        bytes_ += side["io_bytes"]
        seconds = max(seconds, side["runtime"] / 1000)
        cpu_s += (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000
        p99_us.append(side["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1000)
    if not units or seconds <= 0:
        raise ArmFailed("fio moved nothing")
    return {"units": units, "bytes": bytes_, "seconds": seconds, "cpu_s": cpu_s, "task_us": [], "block_p99_us": max(p99_us)}
