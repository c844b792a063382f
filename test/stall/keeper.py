"""The process that owns one lab: it builds it, answers commands on its socket, and takes it down.

Commands come as one line each over the unix socket `control`; each gets one JSON line. Rules, stop, cont, abort and status go
to stallfs (see stallfs.c and gate.h); this process adds:
  freeze, thaw         FIFREEZE and FITHAW of the ext4 (writes hang, reads go on)
  throttle BPS         short for: rate read,write BPS
  unmount, remount     the visible mount goes away lazily, as an administrator's `umount -l` would do it, and comes back
  down                 ends the lab; the answer lists what could not be removed

Taken down without being asked: when the owner process is gone (a pidfd says so), at the end of its life. If this process itself is
killed, stallfs sees the end of its commands, unmounts everything and removes the directory; the loop device detaches itself.
"""
from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import threading
import time
import traceback
from typing import Any

import kernel

CALL_S = 5.0  # bound of one mount, unmount or freeze that may meet a stuck file system


class Lab:
    def __init__(self, directory: str, program: str, *, loop: str | None, size_mib: int, max_hang_s: float) -> None:
        self.dir, self.program, self.size_mib, self.max_hang_s = directory, program, size_mib, max_hang_s
        path = lambda name: os.path.join(directory, name)
        self.fuse, self.mnt, self.back, self.ctl, self.control = path("fuse"), path("mnt"), path("back"), path("ctl"), path("control")
        self.blk = path("blk") if loop else None
        self.device: str | None = None
        self.device_fd = -1
        self.waiting_file = ""
        self.frozen = False
        self.daemon: subprocess.Popen[bytes] | None = None
        self.daemon_lock, self.down_lock = threading.Lock(), threading.Lock()

    # ---- up

    def up(self) -> dict[str, Any]:
        for d in filter(None, (self.fuse, self.mnt, self.back, self.ctl, self.blk)):
            os.mkdir(d)
        image_mib = self.size_mib if self.blk else 0
        kernel.mount("tmpfs", self.back, "tmpfs", options=f"size={self.size_mib + (image_mib and 64)}m,mode=755")
        if os.path.isdir("/sys/fs/fuse/connections"):
            kernel.mount("fusectl", self.ctl, "fusectl")
        log = open(os.path.join(self.dir, "stallfs.log"), "wb")
        on_it = [d for d in (self.blk, self.mnt, self.ctl) if d]
        self.daemon = subprocess.Popen([self.program, self.fuse, self.back, str(self.max_hang_s), self.dir, *on_it], cwd="/",
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0, start_new_session=True)
        self.answers = open(self.daemon.stdout.fileno(), "rb", closefd=False)
        if not self.answers.readline():
            raise OSError("stallfs did not start: " + open(log.name).read().strip())
        minor = dict(kernel.mounted_below(self.fuse))[self.fuse].split(":")[1]
        self.waiting_file = os.path.join(self.ctl, minor, "waiting")
        kernel.mount(self.fuse, self.mnt, None, kernel.MS_BIND)
        if self.blk:
            self.make_disk(os.path.join(self.back, "disk.img"))
            self.device, self.device_fd = kernel.attach_loop(os.path.join(self.fuse, "disk.img"))
            self.mount_disk()
        return {"dir": self.dir, "mnt": self.mnt, "back": self.back, "blk": self.blk, "control": self.control,
                "device": self.device, "keeper_pid": os.getpid(), "daemon_pid": self.daemon.pid}

    def make_disk(self, image: str) -> None:
        with open(image, "wb") as f:
            f.truncate(self.size_mib << 20)
        # Everything is laid out now, so that no kernel thread writes in the background later.
        made = subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-J", "size=8", "-E",
                               "lazy_itable_init=0,lazy_journal_init=0,nodiscard", image], capture_output=True, text=True, timeout=60)
        if made.returncode:
            raise OSError("mkfs.ext4: " + made.stderr.strip())

    def mount_disk(self) -> None:
        assert self.device and self.blk
        kernel.mount(self.device, self.blk, "ext4", kernel.MS_NOSUID | kernel.MS_NODEV)

    # ---- commands

    def ask_daemon(self, line: str) -> dict[str, Any]:
        with self.daemon_lock:
            assert self.daemon
            try:
                self.daemon.stdin.write(line.encode() + b"\n")
                answer = self.answers.readline()
            except OSError:
                answer = b""
        return json.loads(answer) if answer else {"ok": False, "error": "stallfs is gone"}

    def command(self, line: str) -> dict[str, Any]:
        verb, *rest = line.split() or [""]
        try:
            if verb == "status":
                answer = self.ask_daemon("status")
                return answer | {"waiting": self.waiting(), "frozen": self.frozen}
            if verb in ("freeze", "thaw"):
                if not self.blk:
                    return {"ok": False, "error": "freeze and thaw need a lab with ext4 (--loop ext4)"}
                kernel.bounded(lambda: kernel.freeze(self.blk, kernel.FIFREEZE if verb == "freeze" else kernel.FITHAW), CALL_S)
                self.frozen = verb == "freeze"
            elif verb == "throttle":
                return self.ask_daemon(" ".join(["rate", "read,write", *rest]))
            elif verb == "unmount":
                kernel.bounded(lambda: kernel.umount(self.blk or self.mnt, kernel.MNT_DETACH), CALL_S)
            elif verb == "remount":
                kernel.bounded(self.mount_disk if self.blk else lambda: kernel.mount(self.fuse, self.mnt, None, kernel.MS_BIND), CALL_S)
            elif verb == "down":
                left = self.down()
                return {"ok": not left, "left": left}
            else:
                return self.ask_daemon(line)
        except (OSError, kernel.Stuck) as e:
            return {"ok": False, "error": f"{verb}: {e}"}
        return {"ok": True}

    def waiting(self) -> int | None:
        """Requests the kernel waits for, also those not read yet ("stop"); None: the kernel does not say."""
        try:
            return int(open(self.waiting_file).read())
        except (OSError, ValueError):
            return None

    # ---- down: every step is bounded, and the next one is done whatever became of it

    def down(self) -> list[str]:
        with self.down_lock:
            left: list[str] = []
            if self.daemon:
                self.ask_daemon("release")
            if self.frozen:
                self.try_(lambda: kernel.bounded(lambda: kernel.freeze(str(self.blk), kernel.FITHAW), CALL_S))
            if self.blk:
                self.unmount(self.blk, left)
            if self.device:
                os.close(self.device_fd)
                self.wait_for(lambda: not kernel.loop_attached(str(self.device)), 2)
                if kernel.loop_attached(self.device):
                    left.append(self.device)
            self.unmount(self.mnt, left)
            self.unmount(self.fuse, left)
            if self.daemon:
                self.daemon.stdin.close()
                if not self.wait_for(lambda: self.daemon.poll() is not None, 2):
                    self.daemon.kill()
                    self.daemon.wait(CALL_S)
            self.unmount(self.ctl, left)
            self.unmount(self.back, left)
            left += [point for point, _ in kernel.mounted_below(self.dir)]
            if not left:
                shutil.rmtree(self.dir, ignore_errors=True)
            return left

    def unmount(self, path: str, left: list[str]) -> None:
        end = time.monotonic() + 1.5  # somebody may just be leaving
        while any(point == path for point, _ in kernel.mounted_below(path)):
            try:
                kernel.bounded(lambda: kernel.umount(path), CALL_S)
            except (OSError, kernel.Stuck) as e:
                if time.monotonic() < end and isinstance(e, OSError):
                    time.sleep(0.02)
                    continue
                left += kernel.holders(path) or [f"{path}: {e}"]
                self.ask_daemon("abort")  # whoever is still there gets errors, and lets go
                self.try_(lambda: kernel.bounded(lambda: kernel.umount(path, kernel.MNT_DETACH), CALL_S))
                return

    @staticmethod
    def try_(call: Any) -> None:
        try:
            call()
        except (OSError, kernel.Stuck):
            pass

    @staticmethod
    def wait_for(true: Any, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                return False
            time.sleep(0.003)
        return True


def converse(lab: Lab, peer: socket.socket) -> None:
    with peer, peer.makefile("rw", encoding="utf-8", newline="\n") as stream:
        for line in stream:
            answer = lab.command(line.strip())
            done = line.strip() == "down"
            try:
                stream.write(json.dumps(answer) + "\n")
                stream.flush()
            finally:
                if done:
                    os._exit(0)


def keep(lab: Lab, report: int, owner: int, life_s: float) -> None:
    """Runs in its own session; writes the answer of `up` to the descriptor `report`. Does not return."""
    try:
        owner_fd = os.pidfd_open(owner) if owner else -1
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(lab.control)
        listener.listen(64)
        answer = {"ok": True, **lab.up()}
    except BaseException as e:
        traceback.print_exc()
        lab.down()
        os.write(report, json.dumps({"ok": False, "error": str(e)}).encode())
        os._exit(1)
    os.write(report, json.dumps(answer).encode())
    os.close(report)
    end = time.monotonic() + life_s
    watched = [listener] + ([owner_fd] if owner_fd >= 0 else [])
    while (left := end - time.monotonic()) > 0:
        ready = select.select(watched, [], [], left)[0]
        if owner_fd in ready:
            break
        if listener in ready:
            threading.Thread(target=converse, args=(lab, listener.accept()[0]), daemon=True).start()
    lab.down()
    os._exit(0)
