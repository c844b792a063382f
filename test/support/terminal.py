"""A pseudo-terminal for a command: its screen on our stdout, its keyboard our stdin, its size what lines on descriptor 3 say ("rows columns").

    python3 terminal.py ROWS COLUMNS COMMAND WORD…

The exit status is the command's, 128 + N where signal N ended it. `script` has all of this but the size.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios


def size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def main() -> int:
    rows, columns = int(sys.argv[1]), int(sys.argv[2])
    pid, master = pty.fork()
    if pid == 0:
        os.close(3)
        size(0, rows, columns)
        os.execvp(sys.argv[3], sys.argv[3:])
    os.write(2, b"%d\n" % pid)
    sources = {master, 0, 3}
    while master in sources:
        for fd in select.select(list(sources), [], [])[0]:
            try:
                data = os.read(fd, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                data = b""
            if not data:
                sources.discard(fd)
            elif fd == master:
                os.write(1, data)
            elif fd == 0:
                os.write(master, data)
            else:
                for line in data.decode().split("\n"):
                    if line:
                        size(master, *map(int, line.split()))
    status = os.waitpid(pid, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


sys.exit(main())
