"""Products with a planted fault, each of which the soak has to find: the test of the test. The product's own code is not touched.

A plant is a replacement of text, which must fit exactly once, so that it fails aloud when the product has changed: in the script that runs
(dist/kvlane.bundle.cjs), in one C++ file, which is compiled and linked with the product's other objects into an addon of its own, or
in the Python client, as a statement that the client process executes before it starts.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
BUILD = HERE / "build/plants"
NATIVE = CHECKOUT / "native"
COMPILE_S = 240.0
EACH = "\n\t\t\tif (!((globalThis.planted = (globalThis.planted ?? 0) + 1) % {n})) "


@dataclass(frozen=True)
class Plant:
    found_as: frozenset[str]
    bundle: tuple[tuple[str, str], ...] = ()
    native: tuple[str, tuple[tuple[str, str], ...]] | None = None  # a file of native/core
    client: tuple[str, ...] = ()
    breaker: bool = True  # False: the mount is never suspended, so that things pile up
    seconds: float = 40  # in which it must be found
    weights: tuple[int, int, int, int, int] = (50, 20, 20, 6, 4)  # of the faults: mount, damage, sidecar, client, clock


def plant(*found_as: str, **fields: Any) -> Plant:
    return Plant(frozenset(found_as), **fields)


# Which faults come how often, where the usual mixture would take longer to show it.
MOUNT, DAMAGE, SIDECAR, CALM = (85, 5, 5, 0, 5), (15, 85, 0, 0, 0), (30, 5, 60, 0, 5), (30, 0, 0, 0, 70)

# Places in the product.
DEADLINE = "this.#deadlines.set(task, task.deadlineUs);"
SEND = "\t\t\tthis.#send(answer);"
FINISHED = "finished(done, nowUs) {\n\t\t\tconst operation = this.#operations.get(done.id);"
FREED = "memory === this.#slots) this.#freed.push(operation.area);"
COMPLETED = "const block = operation.index;\n\t\t\tif (this.#learntLength(operation, done)"
CAP = "setStuckLimit(this.groups[laneClass].pool, limit)"
FOUND = "const found = this.#found[i];"
WORKER = 'new (require("node:worker_threads").Worker)("setInterval(() => {}, 1e6)", { eval: true });'
WANTED = "if (!lane.still_wanted(op_) || !op_.begin_commit())"
CHECKSUM = "if (payload_xxh3(op_.memory, whole, lane.tail_page(), rest) != page.payload_xxh3)"
CLOSE = "[&] { return file_system_.close(fd); }"
CLOSE_SOME = "[&] { thread_local int n = 0; return ++n % 8 ? file_system_.close(fd) : 0; }"
GIVE_UP = "        close(lane, file_);\n        unlink_temporary(lane);"

PLANTS: dict[str, Plant] = {
    "no quarantine": plant(
        "late bytes in leased memory",
        "wrong bytes",
        bundle=(("slot: settled.quarantined,", "slot: false,"), ("#move(slot, from, to) {", "#move(slot, from, to) {\n\t\t\treturn;")),
        weights=MOUNT,
    ),
    "no second look before the rename": plant(
        "stored though refused",
        native=("block_store.cc", ((WANTED, "if (false)"), ("return lane.rename(op_,", "return lane.rename_back(op_,"))),
        weights=MOUNT,
    ),
    "payloads are not checked": plant("wrong bytes", native=("block_load.cc", ((CHECKSUM, "if (false)"),)), weights=DAMAGE),
    "the key in the header is not looked at": plant(
        "wrong bytes", native=("block_load.cc", (("if (!header_names(page, op_.name_space, op_.hex))", "if (false)"),)), weights=DAMAGE
    ),
    "no cap": plant("over the cap", bundle=((CAP, CAP.replace("limit)", "1000)")),), breaker=False, weights=MOUNT),
    "late answers": plant("late answers", bundle=((DEADLINE, DEADLINE.replace("Us)", "Us + 50000)")),), weights=MOUNT),
    "early answers": plant("early answer", bundle=((DEADLINE, DEADLINE.replace("Us)", "Us - 12000)")),), weights=MOUNT),
    "an answer is lost": plant("lost answer", bundle=((SEND, EACH.format(n=60).replace("!", "") + SEND),), weights=CALM),
    "an answer comes twice": plant("answers to nothing", bundle=((SEND, SEND + EACH.format(n=40) + SEND),), weights=CALM),
    "slots_freed is forgotten": plant("not back", bundle=((FREED, FREED.replace(")", " && Math.random() > 0.2)", 1)),), weights=MOUNT),
    "a wrong code": plant(
        "wrong code", bundle=((COMPLETED, EACH.format(n=60) + 'done = { ...done, status: "corrupt" };\n' + COMPLETED),), weights=CALM
    ),
    "a replaced block stays": plant(
        "stale",
        bundle=(("operation.replace = request.replace ||", "operation.replace ="), ("if (done.kept) {", "if (false) {")),
        weights=CALM,
    ),
    "a store that failed is answered as done": plant(
        "stale",
        "lost block",
        bundle=((COMPLETED, 'if (this.op === "store" && done.status === "io_error") done = { ...done, status: "ok" };\n' + COMPLETED),),
        weights=MOUNT,
    ),
    "a miss where a block is": plant(
        "lost block",
        bundle=((COMPLETED, EACH.format(n=60) + 'done = done.status === "ok" && this.op === "load" ? { ...done, status: "not_found" } : done;\n' + COMPLETED),),
        weights=CALM,
    ),
    "a look-up that guesses": plant(
        "lost block",
        "ghost",
        bundle=((FOUND, FOUND.replace(";", " && (Math.random() < 0.05 ? 3 - this.#found[i] : this.#found[i]);")),),
        weights=CALM,
    ),
    "a sidecar that ends now and then": plant(
        "a sidecar died by itself", bundle=((FINISHED, FINISHED + EACH.format(n=3000) + "process.reallyExit(7);"),), weights=CALM
    ),
    "a sidecar that waits now and then": plant(
        "a sidecar died by itself",
        bundle=((FINISHED, FINISHED + EACH.format(n=1500) + "for (const end = performance.now() + 900; performance.now() < end; );"),),
        weights=CALM,
    ),
    "temporaries stay": plant(
        "left behind", native=("block_store.cc", ((GIVE_UP, GIVE_UP.replace("unlink_temporary(lane)", "temporary_.clear()")),)), weights=MOUNT
    ),
    "a lane keeps descriptors": plant("leaked", native=("lane_context.cc", ((CLOSE, CLOSE_SOME),)), weights=CALM),
    "the process keeps descriptors": plant(
        "leaked", bundle=((FINISHED, FINISHED + EACH.format(n=200) + 'require("node:fs").openSync("/dev/null");'),), weights=CALM
    ),
    "threads stay": plant(
        "leaked", bundle=((FINISHED, FINISHED + EACH.format(n=200) + "if (globalThis.planted < 4001) " + WORKER),), weights=CALM
    ),
    "memory stays": plant(
        "leaked",
        bundle=((FINISHED, FINISHED + "if ((globalThis.kept ??= []).length < 4000) globalThis.kept.push(Buffer.alloc(65536, 1));"),),
        weights=CALM,
    ),
    "the client's clock is late": plant(
        "late answer",
        client=("import kvlane._core as a, kvlane._requests as b; a.GRACE_US = b.GRACE_US = 900_000",),
        weights=SIDECAR,
        seconds=60,
    ),
    "a call of the client breaks": plant(
        "client failed", client=("import kvlane.client as a; a.Client.stuck = lambda *_: 1 / 0",), weights=CALM, seconds=20
    ),
    "the client keeps one descriptor": plant(
        "leaked",
        client=(
            "import os, kvlane._process as a; f = a.SidecarProcess.close_pipes; kept = []; "
            "a.SidecarProcess.close_pipes = lambda self: (kept or kept.append(os.pidfd_open(os.getpid())), f(self))[1]",
        ),
        weights=SIDECAR,
    ),
    "the client leases what is quarantined": plant(
        "late bytes in leased memory",
        "wrong bytes",
        client=("import kvlane._arena as a; f = a.Arena.answered; a.Arena.answered = lambda self, slots, _: f(self, slots, set())",),
        weights=MOUNT,
    ),
}
IN_SHORT = ("no quarantine", "no second look before the rename", "payloads are not checked", "no cap", "a store that failed is answered as done")
"""What `npm test` has time for."""


def replaced(text: str, changes: tuple[tuple[str, str], ...], where: str) -> str:
    for old, new in changes:
        if text.count(old) != 1:
            raise RuntimeError(f"a plant does not fit any more: {where} has {text.count(old)} times: {old!r}; mend plants.py")
        text = text.replace(old, new)
    return text


def prepare(name: str | None) -> dict[str, Any]:
    """What a client process is told: its sidecar's script and environment, and what it does to itself."""
    told: dict[str, Any] = {"sidecar": None, "environment": {}, "spoil": []}
    if name is None:
        return told
    one = PLANTS[name]
    folder = BUILD / name.replace(" ", "-").replace("'", "")
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"KVLANE_NATIVE": str(NATIVE / "build/Release/kvlane.node")}
    if one.bundle:
        script = (CHECKOUT / "dist/kvlane.bundle.cjs").read_text(encoding="utf-8")
        (folder / "kvlane.bundle.cjs").write_text(replaced(script, one.bundle, "the script"), encoding="utf-8")
        shutil.copy(CHECKOUT / "dist/kvlane.cjs", folder)  # and not the compiled code, which is of the script as it was
        told["sidecar"] = str(folder / "kvlane.cjs")
    if one.native:
        environment["KVLANE_NATIVE"] = str(addon(folder, *one.native))
    return told | {"environment": environment, "spoil": list(one.client)}


def addon(folder: Path, file: str, changes: tuple[tuple[str, str], ...]) -> Path:
    """One file compiled anew, all else as the product has it. What was made before is taken again if nothing changed."""
    core = NATIVE / "core"
    text = replaced((core / file).read_text(encoding="utf-8"), changes, file)
    objects = sorted((NATIVE / "build/Release").glob("*/*.o"))
    rest = [str(one) for one in objects if one.stem != Path(file).stem]
    state = hashlib.sha256((text + "".join(f"{one} {one.stat().st_mtime_ns}" for one in objects)).encode()).hexdigest()[:16]
    made = folder / f"kvlane-{state}.node"
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            source, compiled = folder / file, folder / "planted.o"
            source.write_text(text, encoding="utf-8")
            compiler = os.environ.get("CXX", "g++")
            flags = ["-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-pthread", f"-I{core}"]
            subprocess.run([compiler, *flags, "-c", "-o", str(compiled), str(source)], check=True, timeout=COMPILE_S)
            link = ["-shared", "-pthread", "-Wl,-z,nodelete", "-Wl,-z,relro,-z,now"]
            subprocess.run([compiler, *link, "-o", f"{made}.new", str(compiled), *rest], check=True, timeout=COMPILE_S)
            os.rename(f"{made}.new", made)
    return made
