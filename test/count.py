"""Counts tests in the report of a runner: count.py REPORT. Prints "passed failed skipped" on one line, then a line for each that failed or
was skipped. Reads vitest's JSON and pytest's JUnit XML, so that nobody has to trust the colours of a terminal.
"""
import json
import sys
import xml.etree.ElementTree as xml


def vitest(text: str) -> tuple[list[int], list[str]]:
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
    return counts, lines


def junit(text: str) -> tuple[list[int], list[str]]:
    counts, lines = [0, 0, 0], []
    for case in xml.fromstring(text).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            counts[1] += 1
            lines.append("failed: " + name)
        elif (skipped := case.find("skipped")) is not None:
            counts[2] += 1
            lines.append(f"skipped: {name}: {skipped.get('message')}")
        else:
            counts[0] += 1
    return counts, lines


with open(sys.argv[1], encoding="utf-8") as report:
    content = report.read()
totals, details = vitest(content) if sys.argv[1].endswith(".json") else junit(content)
print(*totals)
print(*details, sep="\n")
