"""One sidecar process: its birth, its pipes, its signals, and looking whether it is gone without ever waiting.

A process with one thread in an unkillable call does not die of SIGKILL: waitpid does not return, its pidfd does not
fire. So nothing here waits, and `subprocess` is used for the spawn only: its `wait`, `communicate`, `__exit__` and even
`__del__` may wait, warn or reap behind our back. Everything after the spawn goes through the pidfd.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from .errors import StartFailed


class SidecarProcess:
    """Pipes are non-blocking on our side and closed at most once; every method returns at once."""

    def __init__(self, pid: int, pidfd: int, stdin: int, stdout: int, stderr: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.status: str | None = None  # how it ended, in words, once reaped
        self.killed = False

    @staticmethod
    def spawn(argv: Sequence[str], environment: Mapping[str, str], arena_fd: int) -> SidecarProcess:
        theirs: list[int] = []
        ours: list[int] = []
        try:
            for writes in (True, False, False):  # stdin, stdout, stderr
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                theirs.append(read_end if writes else write_end)
                ours.append(write_end if writes else read_end)
            child = subprocess.Popen(
                list(argv),
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                pass_fds=(arena_fd,),
                cwd="/",  # never a directory that may hang, nor one that it would keep busy
                env=dict(environment),
                start_new_session=True,  # the engine's Ctrl-C is not the sidecar's
            )
        except (OSError, ValueError) as error:
            for fd in ours:
                os.close(fd)
            raise StartFailed(f"cannot start {argv[0]}: {error}", code="SPAWN_FAILED") from error
        finally:
            for fd in theirs:
                os.close(fd)
        child.returncode = 0  # ours to reap; without this Popen.__del__ warns and keeps a list of its own
        for fd in ours:
            os.set_blocking(fd, False)
        pidfd = -1
        with contextlib.suppress(OSError):  # kernels before 5.3, some sandboxes: the pid serves, as it is not reaped yet
            pidfd = os.pidfd_open(child.pid)
        return SidecarProcess(child.pid, pidfd, ours[0], ours[1], ours[2])

    def signal(self, number: int) -> None:
        if self.status is not None:
            return
        with contextlib.suppress(OSError):
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)
            else:
                os.kill(self.pid, number)

    def is_dying(self) -> bool:
        """Whether it is past all return though it cannot be reaped and its pipes are open.

        So it is with native AIO in flight: a killed process waits for it (exit_aio) before it closes anything, and
        neither EOF nor the pidfd tells. It has let go of its memory by then, and so of the link to its program.

        Never by /proc/PID/stat, status or cmdline: reading them holds that memory for a moment, and whoever holds it
        last waits in exit_aio in the other's stead, until the mount answers.
        """
        if self.status is not None:
            return True
        try:
            os.readlink(f"/proc/{self.pid}/exe")
        except FileNotFoundError:
            return os.path.exists(f"/proc/{self.pid}")  # else no /proc, or none of ours to see: silence will decide
        except OSError:
            pass
        return False

    def kill(self) -> None:
        self.killed = True
        self.signal(signal.SIGKILL)

    def reap(self) -> bool:
        """True once nothing of the process is left. Never waits."""
        if self.status is not None:
            return True
        try:
            if self.pidfd >= 0:
                ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
            else:
                ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # somebody else reaped it: a SIGCHLD handler, or SIG_IGN
            self.status = "ended, and somebody else reaped it"
        else:
            if ended is None:
                return False
            how = "exited with status" if ended.si_code == os.CLD_EXITED else "was ended by signal"
            self.status = f"{how} {ended.si_status}"
        self._close("pidfd")
        return True

    def close_stdin(self) -> None:
        self._close("stdin")

    def close_stdout(self) -> None:
        self._close("stdout")

    def close_stderr(self) -> None:
        self._close("stderr")

    def close_pipes(self) -> None:
        for name in ("stdin", "stdout", "stderr"):
            self._close(name)

    def forget_after_fork(self) -> None:
        """In a forked child: let go of the pipes, or the sidecar would not see our parent's end. No signal, no reap."""
        self.close_pipes()
        self._close("pidfd")
        self.status = "belongs to the process that forked this one"

    def _close(self, name: str) -> None:
        fd = getattr(self, name)
        if fd >= 0:
            setattr(self, name, -1)
            with contextlib.suppress(OSError):
                os.close(fd)
