"""Counts tests in the report of a runner: count.py REPORT [FOLDER]. Prints "passed failed skipped" on one line, then a line for each that
failed or was skipped. Reads vitest's JSON and pytest's JUnit XML, so that nobody has to trust the colours of a terminal.

With FOLDER, what a failed Python test said becomes a file in it, the first line its name, for failures.py (vitest: failures_reporter.ts).
"""
import json
import pathlib
import sys
import xml.etree.ElementTree as xml

Failure = tuple[str, str]  # the name of the test, and all that it said


def vitest(text: str) -> tuple[list[int], list[str], list[Failure]]:
    counts, lines = [0, 0, 0], []
    for file in json.loads(text)["testResults"]:
        if file["status"] == "failed" and not file["assertionResults"]:  # it did not even load
            counts[1] += 1
            lines.append(f"failed: {file['name']}: {file.get('message', '').splitlines()[:1]}")
        for test in file["assertionResults"]:
            state = test["status"]
            counts[0 if state == "passed" else 1 if state == "failed" else 2] += 1
            if state != "passed":
                lines.append(f"{'failed' if state == 'failed' else 'skipped'}: {test['fullName']}")
    return counts, lines, []


def junit(text: str) -> tuple[list[int], list[str], list[Failure]]:
    counts, lines, failures = [0, 0, 0], [], []
    for case in xml.fromstring(text).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        said = [found for kind in ("failure", "error") if (found := case.find(kind)) is not None]
        if said:
            counts[1] += 1
            lines.append("failed: " + name)
            failures.append((name, "\n".join(one.text or one.get("message") or "" for one in said)))
        elif (skipped := case.find("skipped")) is not None:
            counts[2] += 1
            lines.append(f"skipped: {name}: {skipped.get('message')}")
        else:
            counts[0] += 1
    return counts, lines, failures


report = pathlib.Path(sys.argv[1])
content = report.read_text(encoding="utf-8")
totals, details, failed = vitest(content) if report.suffix == ".json" else junit(content)
print(*totals)
print(*details, sep="\n")
if len(sys.argv) > 2:
    for number, (name, said) in enumerate(failed):
        pathlib.Path(sys.argv[2], f"{report.stem}-{number:04}").write_text(f"{name}\n{said}\n", encoding="utf-8")
