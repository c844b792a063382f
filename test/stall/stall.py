#!/usr/bin/env python3
"""A lab in which a real file system hangs on command, and goes on on command. README.md says what each stall shows.

  stall.py run [--loop ext4] -- CMD…   CMD in a private mount namespace with a lab, taken down afterwards; it sees
                                       LAB_MNT, LAB_BLK, LAB_BACK, LAB_CONTROL
  stall.py up [--loop ext4] [--size MIB] [--owner PID] [--life S] [--max-hang S]     prints where the lab is, as JSON
  stall.py why-not                     says why there can be no lab here; silent and 0 if there can
  stall.py build                       compiles stallfs and sysgate if they are older than their sources

With --control SOCKET or $LAB_CONTROL:
  hang CLASSES [match=GLOB] [count=N] [when=after]    delay CLASSES MS …    fail CLASSES ERRNO …    rate CLASSES BYTES_PER_S …
  resume [CLASSES] [ERRNO] [count=N]    status    wait CLASS N [SECONDS]    stop    cont    abort
  freeze    thaw    throttle BYTES_PER_S    unmount    remount    down
CLASSES: open lookup getattr read write fsync rename mkdir unlink close, joined by commas, or all.
"""
from __future__ import annotations

import argparse
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(HERE, "build")
ANY_NAMESPACE = "KVLANE_LAB_ANY_NAMESPACE"  # set by who made a private mount namespace himself


def build() -> None:
    os.makedirs(BUILD, exist_ok=True)
    with open(os.path.join(BUILD, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("stallfs", "sysgate"):
            sources = [os.path.join(HERE, f) for f in (name + ".c", "gate.h")]
            program = os.path.join(BUILD, name)
            if os.path.exists(program) and os.path.getmtime(program) > max(map(os.path.getmtime, sources)):
                continue
            new = program + ".new"
            cc = ["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-o", new, sources[0], "-lpthread"]
            print("stall lab: " + " ".join(cc), file=sys.stderr)
            subprocess.run(cc, check=True, stdout=sys.stderr)
            os.rename(new, program)


def why_not() -> str:
    """Empty, or the reason why no real mount can be stalled here."""
    if os.geteuid() != 0:
        return "mounting needs root (the tests with sysgate run without it)"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as e:
        return f"/dev/fuse cannot be opened: {e.strerror}"
    try:
        shared = os.stat("/proc/self/ns/mnt").st_ino == os.stat("/proc/1/ns/mnt").st_ino
    except OSError:
        shared = False
    if shared and not os.environ.get(ANY_NAMESPACE):
        return ("stuck mounts must not be visible to the whole machine: run it in a private mount namespace "
                "(`npm test` does, or: unshare --mount --propagation private CMD)")
    return ""


def up(o: argparse.Namespace) -> dict[str, Any]:
    reason = why_not()
    if reason:
        raise SystemExit("stall: " + reason)
    build()
    import keeper  # only here: the other verbs start faster without it

    directory = tempfile.mkdtemp(prefix="kvlane-lab-")
    lab = keeper.Lab(directory, os.path.join(BUILD, "stallfs"), loop=o.loop, size_mib=o.size, max_hang_s=o.max_hang)
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        log = os.open(os.path.join(directory, "keeper.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0), os.dup2(log, 1), os.dup2(log, 2), os.dup2(write_end, 3)
        os.closerange(4, 1 << 16)  # it must keep nobody's pipes open
        keeper.keep(lab, 3, o.owner, o.life)
    os.close(write_end)
    answer = b""
    while piece := os.read(read_end, 65536):
        answer += piece
    result: dict[str, Any] = json.loads(answer or b'{"ok": false, "error": "the keeper died"}')
    if not result["ok"]:
        raise SystemExit(f"stall: {result['error']} (see {directory})")
    return result


def ask(control: str, line: str, seconds: float = 20) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(seconds)
        s.connect(control)
        s.sendall(line.encode() + b"\n")
        result: dict[str, Any] = json.loads(s.makefile().readline() or '{"ok": false, "error": "no answer"}')
        return result


def wait(control: str, what: str, n: int, seconds: float) -> dict[str, Any]:
    """Until n operations of a class hang. "waiting": until the kernel waits for n, read by stallfs or not."""
    end = time.monotonic() + seconds
    while True:
        status = ask(control, "status")
        now = status["waiting"] if what == "waiting" else status["held"][what]
        if now is not None and now >= n:
            return {"ok": True, what: now}
        if time.monotonic() > end:
            return {"ok": False, "error": f"after {seconds} s {now} of {n} wait ({what})", "status": status}
        time.sleep(0.003)


def run(o: argparse.Namespace, command: list[str]) -> int:
    if not os.environ.get(ANY_NAMESPACE):
        os.environ[ANY_NAMESPACE] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])
    o.owner = os.getpid()
    lab = up(o)
    names = {"LAB_MNT": lab["mnt"], "LAB_BLK": lab["blk"] or "", "LAB_BACK": lab["back"], "LAB_CONTROL": lab["control"]}
    try:
        return subprocess.call(command, env=os.environ | names)
    finally:
        left = ask(lab["control"], "down").get("left")
        if left:
            print("stall: left behind:", *left, file=sys.stderr)


def main(argv: list[str]) -> int:
    command: list[str] = []
    if "--" in argv:
        argv, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("verb")
    p.add_argument("words", nargs="*")
    p.add_argument("--loop", choices=["ext4"])
    p.add_argument("--size", type=int, default=1024, help="MiB the lab can hold (memory, used as it is written)")
    p.add_argument("--owner", type=int, default=0, help="the lab ends with this process")
    p.add_argument("--life", type=float, default=600, help="seconds after which the lab ends in any case")
    p.add_argument("--max-hang", type=float, default=60, help="seconds after which a held operation goes on by itself")
    p.add_argument("--control", default=os.environ.get("LAB_CONTROL"))
    o = p.parse_args(argv)
    if o.verb == "build":
        build()
    elif o.verb == "why-not":
        reason = why_not()
        if reason:
            print(reason)
        return 1 if reason else 0
    elif o.verb == "up":
        print(json.dumps(up(o)))
    elif o.verb == "run":
        return run(o, command or p.error("run wants -- CMD…"))
    elif not o.control:
        p.error(f"{o.verb}: which lab? --control SOCKET or $LAB_CONTROL")
    else:
        if o.verb == "wait":
            answer = wait(o.control, o.words[0], int(o.words[1]), float(o.words[2]) if len(o.words) > 2 else 5)
        else:
            answer = ask(o.control, " ".join([o.verb, *o.words]))
        print(json.dumps(answer))
        return 0 if answer["ok"] else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
