"""The engine can always go on and always exit."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support import Connect, eventually

from kvlane import Client, ClientClosed
from kvlane.testing import FakeSidecar

EXIT_S = 3.0
"""Asserted for an interpreter start, its work and its exit; what the exit takes is printed, and is well under a second."""


def test_a_healthy_sidecar_is_asked_and_leaves(fake: FakeSidecar, kv: Client) -> None:
    kv.close()
    assert fake.wait_ended() == fake.lives[0]
    assert (kv.state, kv.notes()[-1].endswith("exited with status 0)")) == ("closed", True)
    kv.close()


def test_what_is_in_flight_at_the_end_is_settled(fake: FakeSidecar, kv: Client) -> None:
    task = kv.lookup(["a/00"], timeout_ms=60_000)
    kv.close()
    assert task.result is not None and task.result.code == "SHUTTING_DOWN"


def test_a_closed_client_says_so(kv: Client) -> None:
    kv.close()
    with pytest.raises(ClientClosed):
        kv.lookup(["a/00"])
    with pytest.raises(ClientClosed):
        kv.lease(1)
    with pytest.raises(ClientClosed):
        kv.ping()
    assert kv.poll() == []


@pytest.mark.parametrize("how", ["stopped", "deaf", "ignores everything"])
def test_closing_takes_the_close_timeout_at_most(how: str, fake: FakeSidecar, connect: Connect) -> None:
    kv = connect(close_timeout_ms=200)
    if how == "stopped":
        fake.signal(signal.SIGSTOP)
    elif how == "deaf":
        fake.order(deaf=True)
    else:
        fake.mute = True
        fake.order(ignore_term=True)
    began = time.monotonic()
    kv.close()
    took = time.monotonic() - began
    print(f"{how}: closed in {took * 1000:.0f} ms of 200")
    assert took < 2
    assert fake.wait_ended()


def test_a_client_that_is_dropped_ends_its_sidecar_without_waiting(fake: FakeSidecar) -> None:
    kv = Client(fake.options())
    kv.wait_ready()
    fake.signal(signal.SIGSTOP)
    began = time.monotonic()
    del kv
    assert time.monotonic() - began < 0.5
    assert fake.wait_ended()


def run_python(fake: FakeSidecar, body: str) -> tuple[float, str]:
    """Runs a program that uses the fake; how long it took from its last line to its end, and what it printed."""
    socket = list(fake.options().command or ())[-1]
    program = textwrap.dedent(f"""
        import os, signal, sys, threading, time
        from kvlane import Client, Options
        from kvlane.testing import FakeSidecar
        import kvlane._relay
        command = [sys.executable, "-I", "-S", kvlane._relay.__file__, {socket!r}]
        kv = Client(Options(mounts={{"kv0": "/x"}}, command=command, slot_bytes=4096, slots=16))
        kv.wait_ready()
    """) + textwrap.dedent(body)
    program += "\nprint(time.monotonic_ns(), flush=True)\n"
    run = subprocess.Popen([sys.executable, "-W", "error", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with run:
        try:
            out, err = run.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            run.kill()
            raise
        left = time.monotonic_ns()
    assert (run.returncode, err.decode()) == (0, "")
    return (left - int(out.split()[-1])) / 1e9, out.decode()


@pytest.mark.parametrize("in_flight", [0, 1, 1000])
def test_an_interpreter_exits_at_once_beside_a_stopped_sidecar(in_flight: int, fake: FakeSidecar) -> None:
    took, _ = run_python(
        fake,
        f"""
        os.kill(kv.pid, signal.SIGSTOP)
        tasks = [kv.lookup(["a/00"], timeout_ms=60_000) for _ in range({in_flight})]
        """,
    )
    print(f"exit with {in_flight} in flight: {took * 1000:.0f} ms")
    assert took < EXIT_S
    assert fake.wait_ended()  # continued at the exit, it saw the end of its stdin: no orphan stays


def test_an_interpreter_exits_at_once_with_a_callback_that_never_returns(fake: FakeSidecar) -> None:
    took, _ = run_python(
        fake,
        """
        hangs = threading.Event()
        kv.lookup(["a/00"], timeout_ms=1, on_done=lambda task: (hangs.set(), threading.Event().wait()))
        assert hangs.wait(5)
        """,
    )
    assert took < EXIT_S


def test_a_forked_child_does_not_hold_the_sidecar_and_says_that_it_cannot_use_it(fake: FakeSidecar) -> None:
    _, out = run_python(
        fake,
        """
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                kv.lookup(["a/00"])
            except Exception as error:
                print(type(error).__name__, flush=True)
            with open("/proc/self/maps") as maps:
                print("mapped" if "kvlane-arena" in maps.read() else "let go", flush=True)
            os.close(write_end)
            os.read(read_end, 1)  # outlives the parent's client
            os._exit(0)
        os.close(read_end)
        kv.close()
        print(kv.notes()[-1])
        os.close(write_end)
        os.waitpid(child, 0)
        """,
    )
    assert "ClientClosed" in out and "let go" in out
    assert "exited with status 0" in out


def test_a_forked_child_lets_go_of_abandoned_arenas_too(fake: FakeSidecar) -> None:
    _, out = run_python(
        fake,
        """
        from kvlane import _corpses
        corpses = []
        for _ in range(2):
            arena = kv._core.life.arena
            arena = type(arena)(slots=1, slot_bytes=4096, life=9, lock=arena.lock, ledger=arena.ledger, huge_pages="off")
            arena.abandon()
            corpses.append((type(kv._core.life.process).spawn(["sleep", "60"], os.environ, arena.fd), arena))
        kv._core.corpses.add(*corpses[0])  # of this client, and of one that was closed
        _corpses._left.append(_corpses.Corpse(*corpses[1], 0))
        child = os.fork()
        if child == 0:
            with open("/proc/self/maps") as maps:
                print("mapped" if "kvlane-arena" in maps.read() else "let go", flush=True)
            print("inherited", _corpses.left_behind() + len(kv._core.corpses.unreaped_pids()), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        for process, _ in corpses:
            process.kill()
        """,
    )
    assert "let go" in out and "inherited 0" in out


def test_a_forked_child_waits_for_no_lock_that_another_thread_held(fake: FakeSidecar) -> None:
    run_python(
        fake,
        """
        import signal
        held, done = threading.Event(), threading.Event()
        def hold():
            with kv._core.lock, kv._core.notes._lock, kv._core.sidecar_log._lock:
                held.set()
                done.wait()
        slot = kv.lease(1)[0]
        threading.Thread(target=hold, daemon=True).start()
        assert held.wait(5)
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            slot.release(), kv.notes(), kv.sidecar_log(), kv.client_stats(), kv.close()
            os._exit(0)
        done.set()
        assert os.waitpid(child, 0)[1] == 0
        """,
    )


def test_a_sidecar_of_a_killed_engine_sees_the_end_of_its_stdin(fake: FakeSidecar) -> None:
    program = textwrap.dedent(f"""
        import os, signal, sys
        from kvlane import Client, Options
        import kvlane._relay
        command = [sys.executable, "-I", "-S", kvlane._relay.__file__, {list(fake.options().command or ())[-1]!r}]
        kv = Client(Options(mounts={{"kv0": "/x"}}, command=command, slot_bytes=4096, slots=16))
        kv.wait_ready()
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == -signal.SIGKILL
    assert fake.wait_eof()
    assert fake.wait_ended()


def test_no_descriptor_stays_open_after_a_client(fake: FakeSidecar) -> None:
    def descriptors() -> set[str]:
        return {
            f"{fd}:{os.readlink(f'/proc/self/fd/{fd}')}"
            for fd in os.listdir("/proc/self/fd")
            if Path(f"/proc/self/fd/{fd}").exists()
        }

    def ours() -> int:
        return sum(("memfd:kvlane" in entry or "pipe:" in entry or "anon_inode:[pidfd]" in entry) for entry in descriptors())

    with FakeSidecar() as other, Client(other.options()):
        pass  # whatever is made once is made now
    gc.collect()
    before = ours()
    for _ in range(3):
        with FakeSidecar() as other, Client(other.options()) as kv, kv.leasing(2):
            pass
    del kv
    gc.collect()
    eventually(lambda: ours() <= before, f"{before} before, {ours()} after")
