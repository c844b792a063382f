"""The program that `kvlane.testing` starts in place of a sidecar: it decides nothing.

Run by path, as `python relay.py CONTROL_SOCKET serve-options…`. Every line from stdin goes to the test, which sits at the
other end of the socket, and the test says what happens next, one JSON object a line:

    {"say": "…"}     write this to stdout (a newline is added)   {"raw": "…"}   the same without the newline
    {"log": "…"}     write a line to stderr                      {"exit": 3}    leave with this status
    {"deaf": true}   stop reading stdin                          {"close": "stdout"}   and so on

The kernel tells the test when this process is gone: the socket ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys


def main() -> None:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.connect(sys.argv[1])
    hello = {"hello": {"pid": os.getpid(), "argv": sys.argv[2:], "environment": dict(os.environ), "cwd": os.getcwd()}}
    control.sendall(json.dumps(hello).encode() + b"\n")
    buffers = {0: b"", control.fileno(): b""}
    deaf = False
    while True:
        for fd in select.select([control.fileno()] if deaf else [control.fileno(), 0], [], [])[0]:
            data = os.read(fd, 1 << 16)
            *lines, buffers[fd] = (buffers[fd] + data).split(b"\n")
            if fd == 0:
                control.sendall(b"".join(b'{"heard": ' + json.dumps(line.decode()).encode() + b"}\n" for line in lines))
                if not data:
                    control.sendall(b'{"eof": true}\n')
                    deaf = True
                continue
            if not data:
                os._exit(0)  # the test is gone
            for line in lines:
                deaf = obey(json.loads(line), deaf)


def obey(order: dict[str, object], deaf: bool) -> bool:
    for verb, what in order.items():
        if verb in ("say", "raw"):
            data = str(what).encode() + (b"\n" if verb == "say" else b"")
            while data:
                data = data[os.write(1, data) :]
        elif verb == "log":
            os.write(2, str(what).encode() + b"\n")
        elif verb == "exit":
            os._exit(int(str(what)))
        elif verb == "deaf":
            return bool(what)
        elif verb == "close":
            os.close({"stdin": 0, "stdout": 1, "stderr": 2}[str(what)])
        elif verb == "ignore_term":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return deaf


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)
