"""What pyproject.toml cannot say: the sidecar goes into the wheel, and the wheel is for this platform but for any Python 3."""

import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent / "_build"))
import sidecar


class BuildPy(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable install finds the checkout's own dist/
            sidecar.assemble(Path(self.build_lib) / "kvlane" / "_sidecar")


class PlatformWheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        # The addon speaks Node-API with node, and nothing with Python. linux_…, not manylinux_…: it was linked on this
        # machine, against its C and C++ libraries.
        return "py3", "none", super().get_tag()[2]


class WithAddon(Distribution):
    def has_ext_modules(self) -> bool:
        return True


# A build folder in the source tree keeps files of former builds, and they would be packaged.
with tempfile.TemporaryDirectory(prefix="kvlane-wheel-") as folder:
    setup(
        cmdclass={"build_py": BuildPy, "bdist_wheel": PlatformWheel},
        distclass=WithAddon,
        options={"build": {"build_base": folder}},
    )
