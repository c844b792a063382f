"""The files of a store, as one who damages them sees them."""
import os
import time
from collections.abc import Callable
from pathlib import Path

HEADER_BYTES = 4096
STORED_S = 60  # for files to appear: takes milliseconds


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root

    def blocks(self) -> set[Path]:
        return set(self.root.glob("blocks/*/*/*.kvb"))

    def namespaces(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("blocks/*"))

    def aside(self) -> list[Path]:
        return list(self.root.glob("aside/*"))

    def wait_for(self, count: int, before: set[Path] = frozenset()) -> set[Path]:  # type: ignore[assignment]
        """Those that came since `before`: at least so many, and then no more for a moment that is longer than a write."""
        until = time.monotonic() + STORED_S
        while time.monotonic() < until:
            new = self.blocks() - before
            time.sleep(0.2)
            if len(new) >= count and self.blocks() - before == new and not list(self.root.glob("blocks/*/*/*.tmp")):
                return new
        raise AssertionError(f"{len(self.blocks() - before)} chunks stored after {STORED_S} s, want {count}")


def damage(path: Path, how: Callable[[Path], None]) -> None:
    """In a copy that takes the name: nobody who has the file open sees it change under him."""
    copy = path.with_name("damaged")
    copy.write_bytes(path.read_bytes())
    copy.chmod(path.stat().st_mode)
    how(copy)
    os.rename(copy, path)


def flip(path: Path) -> None:
    """One bit of the payload."""
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES + 1000)
        byte = file.read(1)[0]
        file.seek(HEADER_BYTES + 1000)
        file.write(bytes([byte ^ 1]))


def truncate(path: Path) -> None:
    os.truncate(path, HEADER_BYTES + 512)


def empty(path: Path) -> None:
    os.truncate(path, 0)
