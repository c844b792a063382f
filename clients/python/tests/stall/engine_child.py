"""A little engine: a client with loads or stores that the kernel holds, and one way to end. See leaving_stage.py.

    engine_child.py JSON       {"root", "engine", "client": "sync" | "asyncio", "close": bool, "end": …, "signal": …, "op", "count"}

It says one JSON line at each step and waits for a line on stdin before the next: the test hangs the mount in between. A
signal for the sidecar ("SIGKILL", "SIGSTOP") is sent when everything is stuck.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import signal
import sys
import time
from typing import Any


def say(step: str, **facts: Any) -> None:
    print(json.dumps({"step": step, "at_ns": time.monotonic_ns(), **facts}), flush=True)


atexit.register(say, "last line of Python")  # before the client's own is registered, so that it runs after that

from kvlane import AsyncClient, Client, Options  # noqa: E402
from kvlane.results import Result  # noqa: E402

ASKED: dict[str, Any] = json.loads(sys.argv[1])
COUNT: int = ASKED["count"]
SLOT_BYTES = 4096
LONG_MS = 60_000  # it is never a deadline that ends something here
CALM_MS = 10_000
KEYS = [f"{block:04x}" for block in range(COUNT)]
OPTIONS = Options(
    mounts={"kv0": ASKED["root"]},
    create=True,
    engine=ASKED["engine"],
    slot_bytes=SLOT_BYTES,
    slots=4 * COUNT,
    stall_ms=50,
    lanes=16,
    stuck_max=2 * COUNT,
    extra_arguments=["--test-hold-breaker-closed"],
)


def heard(step: str, **facts: Any) -> None:
    """Says it and waits until the test has done its part."""
    say(step, **facts)
    if not sys.stdin.readline():
        os._exit(3)  # the test is gone


def signal_sidecar(pid: int | None) -> None:
    assert pid is not None
    if ASKED["signal"]:
        os.kill(pid, getattr(signal, ASKED["signal"]))


def end() -> None:
    say("ending")
    if ASKED["end"] == "sys.exit":
        sys.exit(7)
    if ASKED["end"] == "exception":
        raise RuntimeError("nobody handles this")


def is_known(looked_up: Result) -> bool:
    """On a busy machine the first look at a mount may take longer than the sidecar waits with its `ready`."""
    return looked_up.code != "MOUNT_SUSPENDED"


def use() -> None:
    kv = Client(OPTIONS)
    kv.wait_ready()
    while not is_known(kv.wait(kv.lookup(KEYS[:1], namespace="leave", timeout_ms=CALM_MS))):
        time.sleep(0.003)  # the test's patience with each step bounds it
    with contextlib.ExitStack() as until_the_end:
        if ASKED["close"]:
            until_the_end.callback(kv.close)
        load = ASKED["op"] == "load"
        if load:
            with kv.leasing(COUNT, use="store") as filled:
                assert kv.wait(kv.store(KEYS, filled, namespace="leave", timeout_ms=CALM_MS)).ok
        slots = kv.lease(COUNT, use="load" if load else "store")
        heard("filled", pid=kv.pid)
        tasks = [
            (kv.load if load else kv.store)([key], [slot], namespace="leave", timeout_ms=LONG_MS)
            for key, slot in zip(KEYS, slots, strict=True)
        ]
        heard("asked")
        assert not any(task.done for task in tasks), [task.result for task in tasks if task.done][:1]
        signal_sidecar(kv.pid)
        end()


async def use_asyncio() -> None:
    kv = AsyncClient(OPTIONS)
    await kv.wait_ready()
    while not is_known(await kv.lookup(KEYS[:1], namespace="leave", timeout_ms=CALM_MS)):
        await asyncio.sleep(0.003)
    async with contextlib.AsyncExitStack() as until_the_end:
        if ASKED["close"]:
            until_the_end.push_async_callback(kv.close)
        load = ASKED["op"] == "load"
        if load:
            with kv.leasing(COUNT, use="store") as filled:
                assert (await kv.store(KEYS, filled, namespace="leave", timeout_ms=CALM_MS)).ok
        slots = kv.lease(COUNT, use="load" if load else "store")
        heard("filled", pid=kv.pid)
        tasks = [
            asyncio.ensure_future((kv.load if load else kv.store)([key], [slot], namespace="leave", timeout_ms=LONG_MS))
            for key, slot in zip(KEYS, slots, strict=True)
        ]
        await asyncio.sleep(0)  # each sends its request
        heard("asked")
        assert not any(task.done() for task in tasks)
        signal_sidecar(kv.pid)
        end()


if ASKED["client"] == "sync":
    use()
else:
    asyncio.run(use_asyncio())
