"""What may be on the disk after a power cut: every subset of the changes that were not forced out, as trees of files.

The disk of these tests keeps no order whatever: names without bytes, bytes without names, later changes without earlier ones. Only what was
forced out stays: fsync of a file, its bytes and its length; fsync of a directory, the names in it. As ext4 and xfs have it, an fsync of
anything also forces out all name changes before it, and one rename (or exchange) is one change. `strict`, what POSIX promises: a directory
at a time, so that of a rename or an exchange one half may be there without the other: two names of one file, or none. A page of a
write is kept, lost, or torn at 512 bytes; where it is lost, zeros stand there, what was there before, or what else the disk had lying about.
"""

from __future__ import annotations

import itertools
import pickle
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Base = dict[int, tuple[int, dict[str, int], bytes]]
Change = tuple[object, ...]
Tree = tuple[tuple[str, bytes, int], ...]  # path, bytes, which file (it may have two names); directories are where files are
ROOT, PAGE, SECTOR = 1, 4096, 512


@dataclass(frozen=True)
class Piece:
    """A page of one write, and that the file is so long."""

    number: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Cut:
    after: int  # changes had been made by then
    tree: Tree


class Journal:
    def __init__(self, file: Path, *, strict: bool = False) -> None:
        self.base: Base
        self.base, self.changes = pickle.loads(file.read_bytes())
        self.strict = strict
        self.known: dict[bytes, bytes] = {}  # thousands of disks share most of their files

    def steps(self) -> int:
        return len(self.changes)

    def trees(self, after: int, *, torn: int, seed: int, subsets_max: int) -> Iterator[Tree]:
        """All that may be there when the power goes after so many changes, the corners first; `torn`: so many with broken pages besides."""
        names: list[tuple[Change, bool]] = []  # and: it is certainly there
        pieces: list[tuple[Piece, bool]] = []
        for change in self.changes[:after]:
            kind = change[0]
            if kind == "write":
                _, number, offset, data = change
                assert isinstance(number, int) and isinstance(offset, int) and isinstance(data, bytes)
                for at in range(0, len(data), PAGE):
                    pieces.append((Piece(number, offset + at, data[at : at + PAGE]), False))
            elif kind == "forced":
                number = change[1]
                pieces = [(p, sure or p.number == number) for p, sure in pieces]
                names = [(n, sure or not self.strict or number == n[1]) for n, sure in names]
            elif kind == "rename" and self.strict:
                names += [(half, False) for half in halves(change)]
            elif kind in ("name", "gone", "rename"):
                names.append((change, False))
            else:
                raise ValueError(f"what does a power cut make of {kind}?")
        free_names = [i for i, (_, sure) in enumerate(names) if not sure]
        free_pieces = [i for i, (_, sure) in enumerate(pieces) if not sure]
        chance = random.Random(seed * 1000 + after)
        # Lengths: a file is as long as its last kept piece says, or as long as all its writes say.
        count = len(free_names) + len(free_pieces) + 1
        picks: Iterator[tuple[int, ...]] = corners(len(free_names), len(free_pieces))
        if 2**count <= subsets_max:
            picks = itertools.chain(picks, itertools.product(range(2), repeat=count))
        else:
            picks = itertools.chain(picks, (tuple(chance.randrange(2) for _ in range(count)) for _ in range(subsets_max)))
        for pick in picks:
            lost_names = {free_names[i] for i in range(len(free_names)) if not pick[i]}
            lost_pieces = {free_pieces[i] for i in range(len(free_pieces)) if not pick[len(free_names) + i]}
            yield self.tree(
                [n for i, (n, _) in enumerate(names) if i not in lost_names],
                [p for i, (p, _) in enumerate(pieces) if i not in lost_pieces],
                pieces,
                bool(pick[-1]),
            )
        kept_names = [n for n, _ in names]
        for _ in range(torn if free_pieces else 0):
            broken = set(chance.sample(free_pieces, chance.randint(1, min(2, len(free_pieces)))))
            stale = chance.random() < 0.5
            parts = [self.torn(p, pieces, chance, stale) if i in broken else p for i, (p, _) in enumerate(pieces)]
            yield self.tree(kept_names, parts, pieces, True)

    def torn(self, piece: Piece, pieces: list[tuple[Piece, bool]], chance: random.Random, stale: bool) -> Piece:
        """Some of its sectors; in the place of the others zeros, what was there, or another page that was once written."""
        before = self.base[piece.number][2][piece.offset : piece.offset + len(piece.data)] if piece.number in self.base else b""
        other = before.ljust(len(piece.data), b"\0")
        if stale:
            known = [data for _, _, data in self.base.values() if len(data) >= piece.offset + len(piece.data)] + [
                bytes(piece.offset) + p.data for p, _ in pieces if len(p.data) == len(piece.data)
            ]
            if known:
                other = chance.choice(known)[piece.offset : piece.offset + len(piece.data)].ljust(len(piece.data), b"\0")
        if chance.random() < 0.3:
            return Piece(piece.number, piece.offset, other)  # nothing of it
        sectors = [(piece.data if chance.random() < 0.5 else other)[at : at + SECTOR] for at in range(0, len(piece.data), SECTOR)]
        return Piece(piece.number, piece.offset, b"".join(sectors))

    def tree(self, names: list[Change], pieces: list[Piece], written: list[tuple[Piece, bool]], whole_length: bool) -> Tree:
        content = {number: bytearray(data) for number, (_, _, data) in self.base.items()}
        if whole_length:
            for piece, _ in written:
                extend(content.setdefault(piece.number, bytearray()), piece.offset + len(piece.data))
        for piece in pieces:
            data = content.setdefault(piece.number, bytearray())
            extend(data, piece.offset + len(piece.data))
            data[piece.offset : piece.offset + len(piece.data)] = piece.data
        directories = {number: dict(entries) for number, (mode, entries, _) in self.base.items() if stat.S_ISDIR(mode)}
        for change in names:
            if change[0] == "name":
                _, parent, name, number, mode = change
                assert isinstance(parent, int) and isinstance(name, str) and isinstance(number, int) and isinstance(mode, int)
                directories.setdefault(parent, {})[name] = number
                if stat.S_ISDIR(mode):
                    directories.setdefault(number, {})
            elif change[0] == "entry":
                _, parent, name, number = change
                assert isinstance(parent, int) and isinstance(name, str) and isinstance(number, int)
                directories.setdefault(parent, {})[name] = number
            elif change[0] == "gone":
                _, parent, name, number = change
                assert isinstance(parent, int) and isinstance(name, str)
                if directories.get(parent, {}).get(name) == number:
                    del directories[parent][name]
            else:
                _, parent, name, number, to_parent, to_name, there = change
                assert (
                    isinstance(parent, int)
                    and isinstance(name, str)
                    and isinstance(number, int)
                    and isinstance(to_parent, int)
                    and isinstance(to_name, str)
                )
                if directories.get(parent, {}).get(name) == number:
                    del directories[parent][name]
                directories.setdefault(to_parent, {})[to_name] = number
                if isinstance(there, int):
                    directories.setdefault(parent, {})[name] = there
        found: list[tuple[str, bytes, int]] = []
        seen: set[int] = set()

        def walk(number: int, path: str) -> None:
            if number in seen:  # a name that was moved and is still there: never a directory here
                return
            seen.add(number)
            for name, child in directories[number].items():
                below = f"{path}/{name}" if path else name
                if child in directories:
                    walk(child, below)
                else:
                    data = bytes(content.get(child, b""))
                    found.append((below, self.known.setdefault(data, data), child))

        walk(ROOT, "")
        return tuple(sorted(found))


def halves(rename: Change) -> list[Change]:
    """The entries of one directory each."""
    _, parent, name, number, to_parent, to_name, there = rename
    return [("entry", to_parent, to_name, number), ("gone", parent, name, number) if there is None else ("entry", parent, name, there)]


def corners(names: int, pieces: int) -> Iterator[tuple[int, ...]]:
    """All or nothing of each, with both lengths; then all but one, and nothing but one."""
    for some_names, some_pieces, length in itertools.product((1, 0), repeat=3):
        yield (*[some_names] * names, *[some_pieces] * pieces, length)
    for i in range(names + pieces):
        for kept in range(2):
            pick = [kept] * (names + pieces)
            pick[i] = 1 - kept
            yield (*pick, 1)


def extend(data: bytearray, length: int) -> None:
    if len(data) < length:
        data.extend(bytes(length - len(data)))


def lay_out(tree: Tree, root: Path) -> None:
    first: dict[int, Path] = {}
    for path, data, number in tree:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if number in first:
            file.hardlink_to(first[number])
            continue
        first[number] = file
        file.write_bytes(data)
        file.chmod(0o600)
