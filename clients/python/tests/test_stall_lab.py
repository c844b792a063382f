"""The fixtures of the stall lab, from the side of pytest. The lab's own tests are in test/lab.test.ts."""

from __future__ import annotations

import subprocess

import stall


def dd(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["dd", "bs=4k", "count=1", *words], stderr=subprocess.DEVNULL)


def test_a_read_on_ext4_hangs_and_goes_on(ext4_lab: stall.Lab) -> None:
    file = ext4_lab.blk / "f"
    assert dd("if=/dev/zero", f"of={file}", "oflag=direct").wait(20) == 0
    ext4_lab.hang("read")
    held = dd(f"if={file}", "of=/dev/null", "iflag=direct")
    ext4_lab.wait_stuck("read")
    assert held.poll() is None
    ext4_lab.resume()
    assert held.wait(20) == 0
