"""Prints what failed once more, short enough for the end of a log: failures.py FOLDER TITLE. Each file in it is one failure, the first line its name.

All together take LINES_MAX lines, shared evenly: where one says less than its share, the next may say more. Of a long one the beginning and
the end are kept: vitest says the assertion first, pytest and compilers last.
"""
import pathlib
import re
import sys

LINES_MAX = 60  # the sum follows, and a log that keeps its last hundred lines keeps both
LINES_MIN = 6  # less tells nothing: what has no place any more is only named in the sum
COLUMNS_MAX = 400
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NOISE = re.compile(r"^\s+at .*(/node_modules/|\(node:|\bnode:internal/)")  # frames of the runner


def lines_of(text: str) -> list[str]:
    plain = (COLOUR.sub("", line).rstrip() for line in text.splitlines())
    return [line[:COLUMNS_MAX] + ("…" if len(line) > COLUMNS_MAX else "") for line in plain if line and not NOISE.match(line)]


def shortened(lines: list[str], most: int) -> list[str]:
    if len(lines) <= most:
        return lines
    head, tail = (most - 1) // 2, most - 1 - (most - 1) // 2
    return [*lines[:head], f"… {len(lines) - head - tail} lines left out …", *lines[-tail:]]


failures = [lines_of(path.read_text(encoding="utf-8", errors="replace")) for path in sorted(pathlib.Path(sys.argv[1]).iterdir())]
failures = [lines for lines in failures if lines]
if failures:
    print(f"\n──── {sys.argv[2]} ({len(failures)}) ────")
left = LINES_MAX
for number, (name, *said) in enumerate(failures):
    if left < LINES_MIN:
        print(f"… and {len(failures) - number} more, further up")
        break
    share = max(LINES_MIN, left // (len(failures) - number))
    print(f"✗ {name}")
    shown = shortened(said, min(share, left) - 1)
    print(*("  " + line for line in shown), sep="\n")
    left -= 1 + len(shown)
