"""The experiment: a real server, a store whose device stops answering, and what becomes of the requests. Called by run.sh.

Every arm has a lab of its own, taken down in any case: by us, by the lab's keeper when this process is gone, by the end of the process
namespace that run.sh makes. A stuck device goes on by itself a little after the hang's planned end.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

import lab
from arm import FULL, HANG_MAX_S, SHORT, Arm, Run
from criteria import checks
from model import write_model
from table import print_checks, print_table

MAX_HANG_EXTRA_S = 20
LAB_MIB = 3072  # a sparse image in memory: what an arm stores, and room

KVLANE = {"connector": "KvlaneConnector", "module": "kvlane.vllm"}
ARMS = {arm.name: arm for arm in (
    Arm("plain", "PlainConnector", "plain_connector", {}),
    Arm("kvlane", options={}, **KVLANE),
    Arm("kvlane recompute staged", options={"load_mode": "staged"}, policy="recompute", **KVLANE),
    Arm("kvlane recompute async", options={"load_mode": "async"}, policy="recompute", **KVLANE),
)}
IN_SHORT = ("plain", "kvlane")


def one_arm(arm: Arm, short: bool, model: Path, directory: Path) -> dict:
    plan = SHORT if short else FULL
    log = directory / f"{arm.name.replace(' ', '-')}.log"
    print(f"\n──── {arm.name}, a hang of {plan.hang_s:.0f} s (log: {log}) ────", flush=True)
    begun = time.monotonic()
    run = None
    here = lab.Lab(size_mib=LAB_MIB, max_hang_s=HANG_MAX_S + MAX_HANG_EXTRA_S)
    try:
        run = Run(arm, plan, model, here, log)
        measured = run.run()
    except Exception as e:
        traceback.print_exc()
        measured = (run.measured if run else {"arm": arm.name}) | {"failed": repr(e)}
        if run and run.server:
            print(run.server.tail(), file=sys.stderr)
    finally:
        here.down()
    measured["arm_s"] = time.monotonic() - begun
    return measured


def ahead_of_the_server() -> None:
    """Who measures must not wait for what is measured, nor may the device: both in the real-time class, servers in the usual one. A lower
    nice value is not enough: two cores on which vLLM spins with sched_yield() left a waiting process at nice -10 seconds without a turn."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    except OSError as e:
        print(f"experiment: no real-time priority, so our own lateness may be large: {e}", flush=True)


def main() -> int:
    p = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    which = p.add_mutually_exclusive_group()
    which.add_argument("--full", action="store_true", help="a hang of 75 s, all arms (about 20 minutes)")
    which.add_argument("--short", action="store_true", help="a hang of 30 s, plain and kvlane; times are judged generously (the default)")
    p.add_argument("--arm", action="append", choices=list(ARMS), help="only this one; may be given several times")
    p.add_argument("--out", type=Path, help="where everything that was measured goes, as JSON")
    p.add_argument("--keep", type=Path, help="directory for the server logs (default: a temporary one)")
    o = p.parse_args()
    arms = o.arm or (list(ARMS) if o.full else list(IN_SHORT))
    reason = lab.why_not()
    if reason:
        print(f"experiment: skipped: {reason}\n0 passed, 0 failed, {len(arms)} skipped")
        return 0
    directory = o.keep or Path(tempfile.mkdtemp(prefix="kvlane-experiment-"))
    directory.mkdir(parents=True, exist_ok=True)
    ahead_of_the_server()
    model = directory / "model"
    write_model(model)
    measured = [one_arm(ARMS[name], not o.full, model, directory) for name in arms]
    found = {m["arm"]: checks(m, full=o.full) for m in measured}
    print_table(measured)
    for name, of_arm in found.items():
        print_checks(name, of_arm)
    if o.out:
        o.out.write_text(json.dumps({"arms": measured, "checks": {n: [c._asdict() for c in of_arm] for n, of_arm in found.items()}}, indent=1))
    everything = [c.passed for of_arm in found.values() for c in of_arm]
    print(f"\n{everything.count(True)} passed, {everything.count(False)} failed, 0 skipped")
    return 1 if False in everything else 0


if __name__ == "__main__":
    sys.exit(main())
