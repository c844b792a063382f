"""Files that are not what they were, and a mount that answers with errors, as a Python caller sees them.

The cases themselves are tested in test/process/damage.test.ts and test/stall/errors.test.ts; here it is that both clients say the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stall
from support import eventually

from kvlane import BlocksResult, Client, Options, TaskFailed

REPOSITORY = Path(__file__).resolve().parents[3]
BUILT = [REPOSITORY / "dist" / "kvlane.cjs", REPOSITORY / "native" / "build" / "Release" / "kvlane.node"]
pytestmark = pytest.mark.skipif(not all(path.is_file() for path in BUILT), reason="no sidecar is built: run `npm run build`")

SLOT_BYTES = 16_384
LENGTH = 5_000
HEADER_BYTES = 4096
TIMEOUT_MS = 15_000


def options(root: Path) -> Options:
    known = ["--test-start-wait-ms", str(TIMEOUT_MS)]  # no first request is refused because the mount is not known yet
    return Options(
        mounts={"kv0": root}, create=True, slot_bytes=SLOT_BYTES, slots=16, timeout_ms=TIMEOUT_MS, extra_arguments=known
    )


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[Client]:
    with Client(options(tmp_path)) as client:
        yield client


def block(root: Path, hex_: str) -> Path:
    return root / "blocks" / "d" / hex_[:2] / f"{hex_}.kvb"


def pattern(hex_: str) -> bytes:
    return (hex_.encode() * LENGTH)[:LENGTH]


def put(kv: Client, hex_: str, *, replace: bool = False) -> BlocksResult:
    with kv.leasing(1, use="store") as slots:
        slots[0].view[:LENGTH] = pattern(hex_)
        return kv.wait(kv.store([hex_], slots, namespace="d", bytes=LENGTH, replace=replace))


def get(kv: Client, hex_: str) -> BlocksResult:
    with kv.leasing(1) as slots:
        result = kv.wait(kv.load([hex_], slots, namespace="d", bytes=LENGTH))
        assert not result.ok or bytes(slots[0].view[:LENGTH]) == pattern(hex_), "wrong bytes were given out as good"
        return result


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def later(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:8] + b"\x02\0\0\0\0\x20\0\0" + data[16:])  # format 2, and another header size


def become(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def instead(path: Path) -> None:
        path.unlink()
        make(path)

    return instead


CASES: list[tuple[str, Callable[[Path], object], str, str | None]] = [
    ("empty", lambda path: os.truncate(path, 0), "CORRUPT", None),
    ("cut off", lambda path: os.truncate(path, 9000), "CORRUPT", None),
    ("a bit of the header", lambda path: flip(path, 100), "CORRUPT", None),
    ("a bit of the payload", lambda path: flip(path, HEADER_BYTES + 7), "CORRUPT", None),
    ("a bit of the padding", lambda path: flip(path, HEADER_BYTES + LENGTH), "OK", None),
    ("another magic", lambda path: flip(path, 0), "CORRUPT", None),
    ("a newer format", lambda path: later(path), "NOT_FOUND", None),
    ("a directory", become(Path.mkdir), "CORRUPT", None),
    ("a FIFO", become(os.mkfifo), "CORRUPT", None),
    ("a link", become(lambda path: path.symlink_to("/etc/hostname")), "CORRUPT", "ELOOP"),
    ("gone", Path.unlink, "NOT_FOUND", "ENOENT"),
]


@pytest.mark.parametrize(("what", "damage", "code", "errno"), CASES, ids=[case[0] for case in CASES])
def test_a_wrong_file_has_its_code(
    kv: Client, tmp_path: Path, what: str, damage: Callable[[Path], object], code: str, errno: str | None
) -> None:
    put(kv, "00aa").check()
    damage(block(tmp_path, "00aa"))
    result = get(kv, "00aa")
    if code == "OK":
        result.check()
        return
    assert not result.ok and result.code == code and result.done == 0 and result.source == "sidecar", what
    [failure] = result.failed
    assert (failure.block, failure.code, failure.errno, failure.slot) == (0, code, errno, "free")
    with pytest.raises(TaskFailed, match=code):
        result.check()


def test_a_block_of_another_length_says_which(kv: Client, tmp_path: Path) -> None:
    with kv.leasing(1, use="store") as slots:
        kv.wait(kv.store(["00ab"], slots, namespace="d", bytes=1234)).check()
    [failure] = get(kv, "00ab").failed
    assert (failure.code, failure.stored_bytes) == ("LENGTH_MISMATCH", 1234)
    assert block(tmp_path, "00ab").is_file()


def test_a_damaged_block_is_moved_aside_and_stored_anew(kv: Client, tmp_path: Path) -> None:
    put(kv, "00ac").check()
    flip(block(tmp_path, "00ac"), HEADER_BYTES)
    assert get(kv, "00ac").code == "CORRUPT"
    eventually(lambda: (tmp_path / "aside").is_dir() and len(list((tmp_path / "aside").iterdir())) == 1)
    assert get(kv, "00ac").code == "NOT_FOUND"
    result = put(kv, "00ac")
    assert result.ok and result.kept == 0
    get(kv, "00ac").check()


def test_errors_of_the_mount_have_their_code_their_errno_and_their_phase(fuse_lab: stall.Lab) -> None:
    with Client(options(fuse_lab.mnt)) as kv:
        put(kv, "00ad").check()
        for rule, code, phase in [
            ("open EACCES", "IO_ERROR", "open"),
            ("read EIO", "IO_ERROR", "read"),
        ]:
            fuse_lab.ask(f"fail {rule} match=/blocks/*")
            [failure] = get(kv, "00ad").failed
            fuse_lab.ask("resume all")
            assert (failure.code, failure.errno, failure.phase, failure.slot) == (code, rule.split()[1], phase, "free")
            get(kv, "00ad").check()
        for rule, code in [
            ("write EIO", "IO_ERROR"),
            ("write ENOSPC", "NO_SPACE"),
            ("write EDQUOT", "NO_SPACE"),
            ("rename EIO", "IO_ERROR"),
        ]:
            fuse_lab.ask(f"fail {rule} match=/blocks/*")
            [failure] = put(kv, "00ad", replace=True).failed
            fuse_lab.ask("resume all")
            assert (failure.code, failure.errno, failure.phase) == (code, rule.split()[1], rule.split()[0])
            get(kv, "00ad").check()  # the old block
        assert [path.suffix for path in fuse_lab.back.joinpath("blocks/d/00").iterdir()] == [".kvb"]
