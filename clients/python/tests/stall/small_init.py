"""The smallest init: PID 1 of a pid namespace that runs one command, says how it ended, and reaps whoever is left to it.

As `tini` or `docker run --init` would: it holds no file of anybody's, and no call on any mount.
"""

from __future__ import annotations

import json
import os
import sys
import time

engine = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
while True:
    try:
        pid, status = os.waitpid(-1, 0)
    except ChildProcessError:
        break
    what = "engine" if pid == engine else "orphan"
    print(
        json.dumps({"step": f"{what} left", "at_ns": time.monotonic_ns(), "status": os.waitstatus_to_exitcode(status)}),
        flush=True,
    )
