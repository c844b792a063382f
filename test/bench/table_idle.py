"""What a sidecar costs that nobody asks for anything: CPU, wake-ups, memory without the arena."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from kvlane import Client, Options
from kvlane.options import node_path

import media
import plain_sidecar
from arm_kvlane import cpu_clock
from stage import Stage

BLOCKS = 32  # of a MiB: they have to fit
SETTLE_S = 1.0  # the last timers of start and work have fired


def resident_mib(pid: int) -> float:
    """Without the arena: shared memory is counted apart, and huge pages not at all."""
    said = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return (int(said["VmRSS"].split()[0]) - int(said["RssShmem"].split()[0])) / 1024


def wake_ups(pid: int) -> int:
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        for line in Path(f"/proc/{pid}/task/{task}/status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def measure(stage: Stage) -> dict[str, Any]:
    idle_s = float(stage.pick(2, 10))
    env = plain_sidecar.environment()
    with media.tmpfs(256) as root:
        with plain_sidecar.program([node_path(), "-e", "process.stdout.write('here\\n'); process.stdin.resume()"], env) as bare:
            bare.line()
            bare_mib = resident_mib(bare.process.pid)
        with Client(Options(mounts={"kv0": root}, create=True, slot_bytes=1 << 20, slots=64, timeout_ms=10_000)) as kv:
            pid = kv.pid
            assert pid is not None
            ready_mib = resident_mib(pid)
            for turn in range(stage.pick(20, 500)):
                keys = [f"{turn % BLOCKS:08x}{i:02x}" for i in range(16)]
                with kv.leasing(len(keys), use="store") as slots:
                    kv.wait(kv.store(keys[:1], slots[:1], namespace="idle", replace=True)).check()
                with kv.leasing(len(keys)) as slots:
                    kv.wait(kv.load(keys, slots, namespace="idle"))
            worked_mib = resident_mib(pid)
            time.sleep(SETTLE_S)
            clock = cpu_clock(pid)
            cpu, woken, began = time.clock_gettime(clock), wake_ups(pid), time.monotonic()
            time.sleep(idle_s)
            spent = time.monotonic() - began
            return {
                "idle_cpu_percent": 100 * (time.clock_gettime(clock) - cpu) / spent,
                "wake_ups_per_s": (wake_ups(pid) - woken) / spent,
                "idle_s": spent,
                "ready_mib": ready_mib,
                "worked_mib": worked_mib,
                "bare_node_mib": bare_mib,
            }
