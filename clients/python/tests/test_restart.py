"""Lives: start, death, silence, and corpses that cannot be reaped."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import pytest
from support import Connect, eventually

from kvlane import SIDECAR_GONE, Client, Options, StartFailed
from kvlane._process import SidecarProcess
from kvlane.testing import FakeSidecar

QUICK: dict[str, Any] = {"backoff_first_ms": 10}


class Unreapable(SidecarProcess):
    """As a process with a call stuck in the kernel: killed, its pipes gone, but it does not go away until the test lets it."""

    held = True
    made: list[Unreapable] = []  # noqa: RUF012

    @staticmethod
    def spawn(argv: Any, environment: Any, arena_fd: int) -> SidecarProcess:
        real = SidecarProcess.spawn(argv, environment, arena_fd)
        process = Unreapable(real.pid, real.pidfd, real.stdin, real.stdout, real.stderr)
        Unreapable.made.append(process)
        return process

    def reap(self) -> bool:
        return not self.held and super().reap()


@pytest.fixture(autouse=True)
def let_go_of_what_is_held() -> Any:
    yield
    for process in Unreapable.made:
        process.held = False
        eventually(process.reap)
    Unreapable.made.clear()


def unreapable(fake: FakeSidecar, **options: Any) -> Client:
    client = Client(fake.options(**{**QUICK, **options}), _spawn=Unreapable.spawn)
    client.wait_ready()
    return client


# --- start -----------------------------------------------------------------------------------------------------------


def test_the_sidecar_gets_little_of_our_surroundings(
    fake: FakeSidecar, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_OPTIONS", "--inspect")
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", "/etc/ssl/certs/ca-certificates.crt")  # node reads it all: 50 ms
    monkeypatch.setenv("KVLANE_EXTRA", "1")
    connect(mounts={"kv0": "relative", "kv1": "/b"}, environment={"ASKED": "2"}, stall_ms=77, file_mode=0o640, create=True)
    assert fake.cwd == "/"
    assert "NODE_OPTIONS" not in fake.environment
    assert "NODE_EXTRA_CA_CERTS" not in fake.environment
    assert (fake.environment["KVLANE_EXTRA"], fake.environment["ASKED"]) == ("1", "2")
    assert (fake.option("--stall-ms"), fake.option("--file-mode")) == ("77", "0640")
    assert "--create" in fake.argv
    root = fake.option("--mount")
    assert root.startswith("kv0=/") and root.endswith("/relative")


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("protocol", 2, "PROTOCOL_MISMATCH"),
        ("now_us", 17, "CLOCK_DISAGREES"),
        ("now_us", None, "CLOCK_DISAGREES"),
        ("arena", {"bytes": 1}, "ARENA_MISMATCH"),
        ("mounts", [{"name": "other"}], "NOT_READY"),
        ("mounts", None, "NOT_READY"),
        ("mounts", [{"name": 1}, {"name": "kv0"}], "NOT_READY"),
        ("event", "hello", "NOT_READY"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_refused(field: str, value: object, code: str) -> None:
    with FakeSidecar(ready={field: value}) as fake:
        client = Client(fake.options())
        with pytest.raises(StartFailed) as caught:
            client.wait_ready()
        assert caught.value.code == code
        client.close()


def test_a_sidecar_that_dies_at_the_start_is_reported_with_its_status_and_its_last_words() -> None:
    script = "import sys; sys.stderr.write('no such mount\\n'); sys.exit(2)"
    options = Options(mounts={"kv0": "/x"}, command=[sys.executable, "-c", script], slots=4)
    with pytest.raises(StartFailed, match="exited with status 2") as caught, Client(options):
        pass
    assert (caught.value.code, caught.value.log_tail) == ("DIED_AT_START", ("no such mount",))


def test_a_sidecar_that_is_never_ready_costs_the_start_timeout(fake: FakeSidecar) -> None:
    fake.auto = False
    began = time.monotonic()
    with pytest.raises(StartFailed) as caught, Client(fake.options(start_timeout_ms=100)):
        pass
    assert caught.value.code == "NOT_READY_IN_TIME"
    assert time.monotonic() - began < 3


def test_a_program_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(StartFailed, match="/not/there") as caught,
        Client(Options(mounts={"kv0": "/x"}, command=["/not/there"])),
    ):
        pass
    assert caught.value.code == "SPAWN_FAILED"
    monkeypatch.setenv("KVLANE_SIDECAR", "/no/main.js")
    with (
        pytest.raises(StartFailed, match=r"/no/main\.js") as caught,
        Client(Options(mounts={"kv0": "/x"}, node="/bin/true")),
    ):
        pass
    assert caught.value.code == "SIDECAR_NOT_FOUND"


# --- death and silence -----------------------------------------------------------------------------------------------


def test_a_death_answers_everything_at_once_and_a_new_life_begins_with_a_new_arena(
    fake: FakeSidecar, connect: Connect
) -> None:
    kv = connect(**QUICK)
    arrived, lost = kv.lease(2)
    arrived.view[:2] = b"ok"
    tasks = [kv.load(["a/00"], [lost], timeout_ms=60_000)] + [kv.lookup(["a/00"], timeout_ms=60_000) for _ in range(99)]
    fake.expect("load")
    fake.signal(signal.SIGKILL)
    assert {kv.wait(task).code for task in tasks} == {SIDECAR_GONE}
    kv.wait_ready()
    assert (kv.life, arrived.life, lost.state) == (2, 1, "abandoned")
    assert bytes(arrived.view[:2]) == b"ok"
    task = kv.load(["a/00"], [arrived])  # a slot of the former life
    assert task.result is not None and task.result.code == SIDECAR_GONE
    fresh = kv.lease(16)
    task = kv.load([f"a/{i:02x}" for i in range(16)], fresh)
    fake.wait_born()
    fake.answer(fake.expect("load"))
    assert kv.wait(task).ok


def test_a_death_is_noticed_where_the_kernel_has_no_pidfds(fake: FakeSidecar) -> None:
    def without_pidfd(argv: Any, environment: Any, arena_fd: int) -> SidecarProcess:
        process = SidecarProcess.spawn(argv, environment, arena_fd)
        os.close(process.pidfd)
        process.pidfd = -1
        return process

    kv = Client(fake.options(**QUICK), _spawn=without_pidfd)
    kv.wait_ready()
    fake.signal(signal.SIGKILL)
    eventually(lambda: kv.life == 2 and kv.state == "up")
    assert kv.client_stats()["unreaped_pids"] == []
    kv.close()


def test_a_mute_sidecar_is_replaced_and_an_idle_one_is_left_alone(fake: FakeSidecar, connect: Connect) -> None:
    kv = connect(heartbeat_ms=20, mute_ms=100, **QUICK)
    fake.signal(signal.SIGSTOP)
    time.sleep(0.3)  # nothing is outstanding: silence means nothing
    assert (kv.state, kv.life) == ("up", 1)
    task = kv.lookup(["a/00"], timeout_ms=60_000)
    assert kv.wait(task).code == SIDECAR_GONE
    assert "mute" in kv.notes()[0]
    fake.wait_born()
    eventually(lambda: kv.state == "up")


def test_silence_is_noticed_too_while_only_a_slot_is_waited_for(fake: FakeSidecar, connect: Connect) -> None:
    kv = connect(heartbeat_ms=20, mute_ms=100, **QUICK)
    task = kv.load(["a/00"], kv.lease(1))
    fake.fail(fake.expect("load"), "DEADLINE_EXCEEDED", slot="quarantined")
    kv.wait(task)
    fake.signal(signal.SIGSTOP)
    eventually(lambda: kv.life == 2 and kv.state == "up")


def test_a_dying_process_is_seen_before_it_is_mute(fake: FakeSidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with native AIO in flight: the killed process closes nothing, and only /proc says that it is past return."""
    kv = unreapable(fake, heartbeat_ms=20, mute_ms=60_000)
    fake.signal(signal.SIGSTOP)
    monkeypatch.setattr(Unreapable, "is_dying", lambda process: process.pid == Unreapable.made[0].pid)
    task = kv.lookup(["a/00"], timeout_ms=60_000)
    assert kv.wait(task).code == SIDECAR_GONE
    assert any("the kernel has not let go of it" in note for note in kv.notes())
    for process in Unreapable.made:
        process.held = False
    kv.close()


def test_a_process_that_lives_is_not_dying_and_one_that_is_gone_is() -> None:
    with FakeSidecar() as fake, Client(fake.options(backoff_first_ms=60_000)) as kv:
        assert kv._core.life is not None
        process = kv._core.life.process
        assert not process.is_dying()
        fake.signal(signal.SIGSTOP)
        assert not process.is_dying()
        fake.signal(signal.SIGKILL)
        eventually(process.is_dying)


def test_pings_keep_a_slow_but_living_sidecar_alive(fake: FakeSidecar, connect: Connect) -> None:
    kv = connect(heartbeat_ms=20, mute_ms=200)
    task = kv.lookup(["a/00"], timeout_ms=60_000)
    time.sleep(0.5)
    fake.answer(fake.expect("lookup"), present=[True], prefix=1, complete=True)
    assert kv.wait(task).prefix == 1
    assert kv.life == 1


def test_the_pause_between_restarts_doubles(fake: FakeSidecar, connect: Connect) -> None:
    kv = connect(backoff_first_ms=10, backoff_max_ms=40)
    fake.auto = False
    for _ in range(4):
        fake.order(exit=3)
        fake.wait_ended()
        fake.wait_born()
    assert kv.client_stats()["restarts"] == 4
    assert kv.state == "restarting"
    fake.auto = True
    fake.say_ready()
    eventually(lambda: kv.state == "up")


def test_restarts_are_told_as_events(fake: FakeSidecar, connect: Connect) -> None:
    kv = connect(**QUICK)
    seen: list[tuple[str, int]] = []
    kv.on_event(lambda event: seen.append((event["state"], event["life"])))
    fake.signal(signal.SIGKILL)
    eventually(lambda: len(seen) == 2)
    assert seen == [("restarting", 1), ("up", 2)]


# --- corpses ---------------------------------------------------------------------------------------------------------


def test_one_corpse_does_not_keep_the_next_life_from_starting(fake: FakeSidecar) -> None:
    kv = unreapable(fake)
    fake.signal(signal.SIGKILL)
    eventually(lambda: kv.life == 2 and kv.state == "up")
    stats = kv.client_stats()
    assert (stats["arenas_abandoned"], stats["unreaped_pids"]) == (1, [Unreapable.made[0].pid])
    Unreapable.made[0].held = False
    eventually(lambda: kv.client_stats()["arenas_abandoned"] == 0)
    Unreapable.made[1].held = False
    kv.close()


def test_with_two_corpses_the_client_is_off_until_the_kernel_lets_one_go(fake: FakeSidecar) -> None:
    kv = unreapable(fake)
    for life in (1, 2):
        fake.wait_born()
        eventually(lambda life=life: kv.life == life and kv.state == "up")  # type: ignore[misc]
        fake.signal(signal.SIGKILL)
    eventually(lambda: kv.state == "off")
    task = kv.lookup(["a/00"])
    assert task.result is not None and task.result.code == "SATURATED"
    assert str(Unreapable.made[0].pid) in kv.reason
    Unreapable.made[0].held = False
    eventually(lambda: kv.state == "up")
    assert kv.life == 3
    for process in Unreapable.made:
        process.held = False
    kv.close()


def test_a_view_that_the_caller_keeps_counts_as_an_abandoned_arena(fake: FakeSidecar, connect: Connect) -> None:
    kv = connect(**QUICK)
    (slot,) = kv.lease(1)
    view = slot.view
    slot.release()
    fake.signal(signal.SIGKILL)
    fake.wait_ended()
    fake.wait_born()
    eventually(lambda: kv.state == "up")
    assert kv.client_stats()["arenas_abandoned"] == 1
    view.release()
    eventually(lambda: kv.client_stats()["arenas_abandoned"] == 0)


def test_closing_with_a_corpse_is_bounded_and_the_next_client_takes_it_over(fake: FakeSidecar) -> None:
    kv = unreapable(fake, close_timeout_ms=100)
    began = time.monotonic()
    kv.close()
    assert time.monotonic() - began < 2
    assert "left behind" in kv.notes()[-1]
    fake.wait_born()
    began = time.monotonic()
    with Client(fake.options()) as second:
        print(f"start beside a corpse: {(time.monotonic() - began) * 1000:.0f} ms")
        assert second.client_stats()["unreaped_pids"] == [Unreapable.made[0].pid]
        Unreapable.made[0].held = False
        eventually(lambda: second.client_stats()["unreaped_pids"] == [])
