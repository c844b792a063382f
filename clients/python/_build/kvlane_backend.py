"""The build backend: setuptools', with two differences.

A node is asked for as a build requirement only where the machine has none that will do; and there is no sdist, as
the sidecar's sources lie outside of this folder.
"""

import re
import shutil
from pathlib import Path

import sidecar
from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_wheel,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_wheel(config_settings=None):
    wanted = build_meta.get_requires_for_build_wheel(config_settings)
    if sidecar.finder.find_node()[0] is None or shutil.which("npm") is None:
        dependencies = Path("pyproject.toml").read_text(encoding="utf-8")
        found = re.search(rf'"({sidecar.finder.NODE_PACKAGE}[^"]*)"', dependencies)
        wanted = [*wanted, found[1] if found else sidecar.finder.NODE_PACKAGE]
    return wanted


def get_requires_for_build_sdist(config_settings=None):
    return []


def build_sdist(sdist_directory, config_settings=None):
    raise SystemExit(
        "kvlane: there is no sdist: the sidecar is built from the whole checkout, of which this folder is a part. "
        "A wheel has everything: pip wheel --no-deps ./clients/python, or python -m build --wheel clients/python"
    )
