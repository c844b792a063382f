"""Puts the sidecar into the wheel: its script with the packages it needs at run time, the addon, and all their licences.

Always made from the sources that lie beside clients/python, into a folder of its own, so that what is packaged
is what they say; dist/ of the checkout is neither read nor written. What has to be there for that, node_modules and
native/build, is made or brought up to date in the checkout, by the same steps as `npm run build`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[2]
NPM_TIMEOUT_S, COMPILE_TIMEOUT_S = 1800, 1800
"""A registry that does not answer, a compiler on one busy processor: an end must come, but late."""


def _load_finder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_kvlane_node", HERE.parent / "src" / "kvlane" / "_node.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


finder = _load_finder()


def assemble(target: Path) -> None:
    """Makes `target`, the package's _sidecar folder."""
    if not sys.platform.startswith("linux"):
        stop(f"kvlane runs on Linux only, this is {sys.platform}")
    manifest = _manifest()
    node = _node()
    say(f"node is {node}")
    _node_modules(node)
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    say("native/: make")
    run([node, str(CHECKOUT / "native" / "build.mjs")], COMPILE_TIMEOUT_S)
    _copy_addon(target)
    say("sidecar/: one script, and the code that this node makes of it")
    run([node, str(CHECKOUT / "sidecar" / "build.mjs"), str(target / "dist")], COMPILE_TIMEOUT_S)
    kept = {name: manifest[name] for name in ("name", "version", "license", "private", "type", "engines")}
    (target / "package.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    _copy_licences(target)
    files = [path for path in target.rglob("*") if path.is_file()]
    say(f"the sidecar: {len(files)} files, {sum(path.stat().st_size for path in files) // 1024} KiB")


def runtime_packages(lock: dict[str, Any]) -> list[str]:
    """What is in the sidecar's script: what it imports, directly or not. node-addon-api is headers: it is in the addon."""
    packages = lock["packages"]
    found: list[str] = []
    waiting = list(packages[""]["dependencies"])
    while waiting:
        name = waiting.pop()
        if name in found or name == "node-addon-api":
            continue
        found.append(name)
        waiting += packages[f"node_modules/{name}"].get("dependencies", {})
    nested = [path for path in packages if any(path.startswith(f"node_modules/{name}/node_modules/") for name in found)]
    if nested:
        stop(f"two versions of one package at run time, which this script does not know how to copy: {', '.join(nested)}")
    return sorted(found)


def _manifest() -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((CHECKOUT / "package.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        manifest = {}
    if manifest.get("name") != "kvlane":
        stop(f"the sidecar's sources are not at {CHECKOUT}: the wheel is built from a whole checkout, by pip 21.3 or later")
    return manifest


def _lock() -> dict[str, Any]:
    lock: dict[str, Any] = json.loads((CHECKOUT / "package-lock.json").read_text(encoding="utf-8"))
    return lock


def _node() -> str:
    node, looked = finder.find_node()
    if node is None:
        stop(f"no node to build with: {', '.join(looked)}; {finder.wanted()} is needed")
    return str(node)


def _node_modules(node: str) -> None:
    """npm ci, unless what is there is what the lock file says: npm writes down what it installed."""
    try:
        installed = json.loads((CHECKOUT / "node_modules" / ".package-lock.json").read_text(encoding="utf-8"))["packages"]
    except (OSError, ValueError, KeyError):
        installed = {}
    locked = _lock()["packages"]
    wrong = [
        path
        for path, entry in locked.items()
        if path and not entry.get("optional") and installed.get(path, {}).get("version") != entry["version"]
    ]
    if not wrong:
        return
    npm = shutil.which("npm")
    packaged = finder.packaged_node()
    if npm is not None and os.path.dirname(npm) != os.path.dirname(str(packaged)):
        command = [npm]
    elif packaged is not None:
        command = [node, str(packaged.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    else:
        stop(f"node_modules lacks {len(wrong)} packages and there is no npm to install them; run npm ci, or install npm")
    say(f"npm ci in {CHECKOUT}: {len(wrong)} packages of package-lock.json are not in node_modules")
    run([*command, "ci", "--no-audit", "--no-fund"], NPM_TIMEOUT_S, path_first=os.path.dirname(node))


def _copy_addon(target: Path) -> None:
    built = CHECKOUT / "native" / "build" / "Release" / "kvlane.node"
    addon = target / "native" / "build" / "Release" / "kvlane.node"  # where native/index.ts looks, from package.json on
    addon.parent.mkdir(parents=True)
    shutil.copy(built, addon)
    if shutil.which("strip"):
        run(["strip", "--strip-debug", str(addon)], 60)
    addon.chmod(0o755)


def _copy_licences(target: Path) -> None:
    """Ours, those of the packages that are in the script, and those of the headers that are compiled into the addon."""
    folder = target / "licenses"
    folder.mkdir()
    shutil.copyfile(CHECKOUT / "LICENSE", folder / "kvlane.txt")
    for name in runtime_packages(_lock()):
        _copy_licence(name, folder)
    shutil.copyfile(CHECKOUT / "node_modules" / "node-addon-api" / "LICENSE.md", folder / "node-addon-api.txt")
    compiler = os.environ.get("CXX", "g++")
    asked = subprocess.run(
        [compiler, "-M", "-x", "c++", "-"], input="#include <xxhash.h>\n", capture_output=True, text=True, timeout=60
    )
    header = next((word for word in asked.stdout.split() if word.endswith("/xxhash.h")), None)
    if header is None:
        stop("xxhash.h was there for the compilation and is gone now")
    notice = Path(header).read_text(encoding="utf-8", errors="replace").partition("*/")[0] + "*/\n"
    (folder / "xxhash.txt").write_text(notice, encoding="utf-8")


def _copy_licence(name: str, folder: Path) -> None:
    package = CHECKOUT / "node_modules" / name
    texts = [path for path in package.iterdir() if path.name.upper().startswith(("LICENSE", "LICENCE"))]
    if texts:
        shutil.copyfile(texts[0], folder / f"{name.replace('/', '_')}.txt")
        return
    said = json.loads((package / "package.json").read_text(encoding="utf-8"))  # some packages only name theirs
    if not said.get("license"):
        stop(f"the package {name} says nothing of its licence")
    text = f"{name} {said['version']}, {said.get('author', '')}: {said['license']}\n"
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def run(argv: list[str], timeout_s: float, path_first: str | None = None) -> None:
    """A step of the build; what it says goes where ours goes, and if it fails, it has said why."""
    environment = dict(os.environ)
    if path_first:
        environment["PATH"] = path_first + os.pathsep + environment.get("PATH", os.defpath)
    try:
        status = subprocess.run(argv, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, timeout=timeout_s).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        stop(f"{' '.join(argv)}: {error}")
    if status != 0:
        stop(f"this step failed with exit status {status}, and says above why: {' '.join(argv)}")


def say(text: str) -> None:
    print(f"kvlane: {text}", file=sys.stderr, flush=True)


def stop(text: str) -> NoReturn:
    raise SystemExit(f"kvlane: cannot build the wheel: {text}")
