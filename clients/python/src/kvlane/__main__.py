"""`kvlane …` and `python -m kvlane …`: the sidecar's own command line, by hand.

This process becomes node, so that signals and the terminal are the sidecar's.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from .errors import StartFailed
from .options import main_js, node_path


def main() -> NoReturn:
    try:
        node = os.environ.get("KVLANE_NODE") or node_path()
        script = main_js(os.environ.get("KVLANE_SIDECAR"))
        os.execv(node, [node, str(script), *sys.argv[1:]])
    except (StartFailed, OSError) as error:
        sys.exit(f"kvlane: {error}")


if __name__ == "__main__":
    main()
