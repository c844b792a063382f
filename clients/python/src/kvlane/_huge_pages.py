"""The memory of an arena: a sealed memfd on the largest pages that the host lets us have.

Two kinds. The hugetlb pool is set aside by the host's administrator and is all or nothing. Transparent huge pages are
given as memory is touched, if the host's policy for shared memory allows it; asking (madvise) succeeds also where it does
not. So nothing is claimed here: the sidecar looks at what its mapping has really got, and says so in `ready`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

HugePages = Literal["auto", "require", "hugetlb", "thp", "off"]
HUGE_PAGES: tuple[HugePages, ...] = ("auto", "require", "hugetlb", "thp", "off")

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
"""Not F_SEAL_SEAL: the last seal, against writing, tells at the end whether anybody can still write."""

HUGETLB = "/sys/kernel/mm/hugepages"
THP = "/sys/kernel/mm/transparent_hugepage"
PAGE_BYTES_MIN = 1 << 20
"""arm64 has hugetlb pages of 64 KiB; transparent ones are better."""
PAGE_BYTES_USUAL = 2 << 20
WASTE_BYTES = 2 << 20
WASTE_SHARE = 8
"""Rounding up to whole pages may cost 2 MiB, or an eighth of the arena."""
PIECE_BYTES = 256 << 20
"""Taken from the pool between two looks whether the client is being closed; the kernel clears it, some 30 ms."""
BRING_S_MAX = 5.0
"""On a fragmented machine the kernel searches long for each page; a start must not. The rest comes as it is touched."""
BRING_PAGES = 64
"""Touched between two looks at the clock: some 15 ms."""
MFD_HUGE_SHIFT = 26


class TooFew(OSError):
    """Huge pages were insisted on; says how many there are and what to run."""


@dataclass(frozen=True)
class Pool:
    page_bytes: int
    pages: int
    available: int


def pools() -> list[Pool]:
    """Of the hugetlb kind, largest pages first."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(HUGETLB):
            if match := re.fullmatch(r"hugepages-(\d+)kB", name):
                each = ("nr", "free", "resv", "surplus", "nr_overcommit")
                count = {word: _number(f"{HUGETLB}/{name}/{word}_hugepages") for word in each}
                free = max(0, count["free"] - count["resv"])
                beyond = max(0, count["nr_overcommit"] - count["surplus"])
                found.append(Pool(int(match[1]) << 10, count["nr"], free + beyond))
    return sorted(found, key=lambda pool: -pool.page_bytes)


def thp_bytes() -> int:
    """What a transparent huge page holds; 0 where the host's policy gives none to shared memory."""
    size = _number(f"{THP}/hpage_pmd_size")
    if size == 0:
        return 0
    policy = _chosen(f"{THP}/hugepages-{size >> 10}kB/shmem_enabled")
    if policy in ("", "inherit"):
        policy = _chosen(f"{THP}/shmem_enabled")
    return size if policy in ("always", "within_size", "advise", "force") else 0


def make(
    size_bytes: int, wanted: HugePages = "auto", *, insist: bool = True, stop: Callable[[], bool] = lambda: False
) -> tuple[int, mmap.mmap]:
    """A sealed memfd and its mapping; rounded up where it gets huge pages.

    `insist` False: `require` and its kin take what there is, as `auto` does. `stop` is asked now and then.
    """
    must = insist and wanted not in ("auto", "off")
    refusal = ""
    if wanted in ("auto", "require", "hugetlb"):
        for page_bytes in _fitting(size_bytes, must):
            try:
                return _hugetlb(_round_up(size_bytes, page_bytes), page_bytes, stop)
            except OSError as error:  # no pages left: the arena goes on with the next best
                refusal = error.strerror or str(error)
            if stop():
                raise OSError(errno.ECANCELED, "the client is being closed")
    huge = thp_bytes() if wanted in ("auto", "require", "thp") else 0
    if huge and (must or _fits(size_bytes, huge)):
        fd, mapping = _memfd(_round_up(size_bytes, huge), 0)
        _bring(mapping, huge, stop)
        return fd, mapping
    if must:
        raise TooFew(errno.ENOMEM, _too_few(size_bytes, wanted, refusal))
    return _memfd(_round_up(size_bytes, mmap.PAGESIZE), 0)  # slots are 4 KiB at least, pages may be 64: the sidecar wants whole ones


def _fitting(size_bytes: int, must: bool) -> Iterator[int]:
    for pool in pools():
        usual = must and pool.page_bytes == PAGE_BYTES_USUAL
        if pool.page_bytes >= PAGE_BYTES_MIN and (usual or _fits(size_bytes, pool.page_bytes)):
            yield pool.page_bytes


def _fits(size_bytes: int, page_bytes: int) -> bool:
    waste = _round_up(size_bytes, page_bytes) - size_bytes
    return size_bytes >= page_bytes and waste <= max(WASTE_BYTES, size_bytes // WASTE_SHARE)


def _round_up(size_bytes: int, page_bytes: int) -> int:
    return -(-size_bytes // page_bytes) * page_bytes


def _hugetlb(size_bytes: int, page_bytes: int, stop: Callable[[], bool]) -> tuple[int, mmap.mmap]:
    """Mapping reserves the pages for this file, whoever touches it first. Yet a control group or a cpuset with none left
    shows only at the touch, as SIGBUS; so they are all taken now."""
    fd, mapping = _memfd(size_bytes, os.MFD_HUGETLB | (page_bytes.bit_length() - 1) << MFD_HUGE_SHIFT)
    try:
        for start in range(0, size_bytes, PIECE_BYTES):
            if stop():
                raise OSError(errno.ECANCELED, "the client is being closed")
            os.posix_fallocate(fd, start, min(PIECE_BYTES, size_bytes - start))
    except BaseException:
        mapping.close()
        os.close(fd)
        raise
    return fd, mapping


def _bring(mapping: mmap.mmap, huge: int, stop: Callable[[], bool]) -> None:
    """Asks for transparent huge pages and touches one byte of each, for only then the kernel looks for them, and clears
    them: a tenth of a second a GiB. By a system call and not by hand, which would hold the interpreter all that time."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as later:
        mapping.madvise(mmap.MADV_HUGEPAGE)
        zeros = os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)
        later.callback(os.close, zeros)
        whole = later.enter_context(memoryview(mapping))
        until = time.monotonic() + BRING_S_MAX
        for start in range(0, len(mapping), huge * BRING_PAGES):
            end = min(start + huge * BRING_PAGES, len(mapping))
            os.readv(zeros, [whole[at : at + 1] for at in range(start, end, huge)])
            if stop() or time.monotonic() > until:
                return


def _memfd(size_bytes: int, flags: int) -> tuple[int, mmap.mmap]:
    fd = os.memfd_create("kvlane-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
    try:
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        return fd, mmap.mmap(fd, size_bytes)
    except BaseException:
        os.close(fd)
        raise


def _too_few(size_bytes: int, wanted: HugePages, refusal: str) -> str:
    said = []
    commands = []
    if wanted != "thp":
        for pool in pools():
            if pool.page_bytes != PAGE_BYTES_USUAL:
                continue
            need = _round_up(size_bytes, pool.page_bytes) // pool.page_bytes
            said.append(f"{need} hugetlb pages of {pool.page_bytes >> 10} KiB are needed and {pool.available} available")
            if need > pool.available:
                path = f"{HUGETLB}/hugepages-{pool.page_bytes >> 10}kB/nr_hugepages"
                commands.append(f"echo {pool.pages + need - pool.available} | sudo tee {path}")
            else:  # more of them would change nothing
                said[-1] += f", yet the kernel says '{refusal}': a control group (hugetlb.*.max) or a cpuset may forbid them"
    if wanted != "hugetlb":
        said.append("transparent ones are not allowed for shared memory")
        commands.append(f"echo advise | sudo tee {THP}/shmem_enabled")
    advice = f"; on the host run  {'  or  '.join(commands)}" if commands else ""
    return f"huge_pages is {wanted!r}: {', and '.join(said) or 'this kernel has no hugetlb pages of 2 MiB'}{advice}"


def _line(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.readline()
    except (OSError, ValueError):
        return ""


def _number(path: str) -> int:
    line = _line(path).strip()
    return int(line) if line.isdigit() else 0


def _chosen(path: str) -> str:
    match = re.search(r"\[(\w+)\]", _line(path))
    return match[1] if match else ""
