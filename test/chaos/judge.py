"""What has to hold at the end of a round: nothing of what a fault took is missing, nothing stays behind, and nobody died without a reason."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import observe
from observe import Held

if TYPE_CHECKING:
    from main import Played, Soak

MUTE_US = 3_000_000
"""So long after the beginning or the end of a SIGSTOP of it or of its client a sidecar may be taken for mute (mute_ms is 600)."""
MUTE_MAX = 1
"""Without a SIGSTOP: a machine that gave it no processor for so long. Twice is a sidecar that waits for something."""
MUTE = "mute, though nobody had stopped it"
ANON_KIB_MORE = 96 << 10
"""Beyond the first quiet moment. Node's heap grows to this before it is collected; a leak grows on."""
OWN_KIB_MORE = 64 << 10
PROBES = 6 + 2
"""Threads beside the counted lanes: one of each class and device that probes, a spare for those that end just now."""
LANE_FDS_MORE = 3
LANES = 2
DIED = "a sidecar died by itself"
ENOUGH_S = 45.0
LATE_MIN = 20
LATE_US_MAX = 19_500
"""Then the client's own clock, GRACE_MS after the deadline, has the word and not the sidecar. What the client was late itself is taken off; still a
machine without a processor to spare makes many answers late, but not in every round."""
LATE_ROUNDS_MIN = 3
LATE_ROUNDS_SHARE = 0.4
JUDGED_ROUND = "rounds of a client with enough answers at their deadline to judge"
LATE_ROUND = "rounds of a client in which half of the answers were late"


@dataclass
class Violation:
    kind: str
    text: str
    at_us: int


@dataclass
class Figures:
    """Sums over all clients; `first` is what each engine's sidecar and client held before the first fault, `held` which those were, `passing`
    the clients' descriptors that some looks saw and others of the same quarter of a second did not."""

    ops: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    client: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    overshoot_us: list[int] = field(default_factory=list)
    unharmed_us: list[int] = field(default_factory=list)
    first: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    passing: Counter[str] = field(default_factory=Counter)
    most: dict[str, int] = field(default_factory=dict)
    leftovers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0
    rounds: int = 0

    def begin(self, clients: Iterable[Played]) -> None:
        for client in clients:
            if client.quiet and "sidecar" in client.quiet:
                self.first.setdefault(client.engine, client.quiet["sidecar"] | {"lanes": client.quiet["lanes"]})
                self.held.setdefault(client.engine, client.quiet["sidecar held"])
                self.first.setdefault(f"own {client.kind}", client.quiet["own"])
                self.held.setdefault(f"own {client.kind}", client.quiet["own held"])

    def high(self, name: str, value: int) -> None:
        self.most[name] = max(self.most.get(name, value), value)


def death(soak: Soak, client: Played, record: dict[str, Any]) -> None:
    """Each has a reason of its own: we killed this very process, or stopped it, or took its memory."""
    reason, pid = record["reason"], client.sidecars.get(record["life"])
    soak.faults.note(f"{record['who']}: life {record['life']} is over: {reason}")
    if "never answered task" in reason:
        soak.violation("lost answer", f"{record['who']}: {reason}", record["at"])
    elif "not JSON" in reason or "no object" in reason or "ProtocolBroken" in reason:
        soak.violation("garbage from the sidecar", f"{record['who']}: {reason}", record["at"])
    elif reason.startswith("mute"):
        if record["at"] - client.stopped_us > MUTE_US:
            soak.counts[MUTE] += 1
            if soak.counts[MUTE] > MUTE_MAX:
                soak.violation(DIED, f"{record['who']}: {reason}: {MUTE}, {soak.counts[MUTE]} times", record["at"])
    elif reason.startswith("it was not ready"):
        soak.counts["not ready in time (a slow machine)"] += 1
    elif pid not in soak.faults.killed | soak.faults.starved:
        soak.violation(DIED, f"{record['who']}: life {record['life']}, pid {pid}: {reason}; nobody had killed it; its log: {record['log'][-4:]}", record["at"])


def ended(soak: Soak, record: dict[str, Any]) -> None:
    """Whoever is killed, by us or by its client, ends by signal 9; whoever crashes in between does not."""
    if record["how"] != "was ended by signal 9" and record["pid"] not in soak.faults.starved:
        soak.violation(DIED, f"{record['who']}: pid {record['pid']} {record['how']}", record["at"])


def quiet(soak: Soak, client: Played, record: dict[str, Any]) -> None:
    figures, found = soak.figures, []
    for name in ("ops", "codes", "counted", "late"):
        getattr(figures, name).update(record[name])
    for name, value in record["client"].items():
        figures.client[f"{name} of {client.who}"] = value
    figures.passing.update(record["passing"])
    figures.overshoot_us += record["overshoot"]
    over = sorted(soak.over_us.pop(client.who, []))
    soak.counts[JUDGED_ROUND] += len(over) >= LATE_MIN
    if len(over) >= LATE_MIN and over[len(over) // 2] > LATE_US_MAX:
        soak.counts[LATE_ROUND] += 1
        soak.faults.note(f"{client.who}: half of the answers of this round were late: {over}")
        if soak.counts[LATE_ROUND] >= max(LATE_ROUNDS_MIN, LATE_ROUNDS_SHARE * soak.counts[JUDGED_ROUND]):
            about = f"half of {len(over)} answers came more than {over[len(over) // 2]} us after their deadline, with nobody stopped or killed"
            found.append(f"{about}; so it was {soak.counts[LATE_ROUND]} times")
    found += grown(figures, client, record)
    for text in found:
        soak.violation("leaked" if "leak" in text else "late answers", f"{client.who}: {text}", record["at"])


def grown(figures: Figures, client: Played, record: dict[str, Any]) -> list[str]:
    found = []
    first = figures.first.get(f"own {client.kind}")
    own = record["own"]
    if first:
        held = figures.held[f"own {client.kind}"]
        figures.high("client descriptors more", own["fds"] - first["fds"])
        figures.high("client threads more", own["threads"] - first["threads"])
        figures.high("client memory more (KiB)", own["rssanon_kib"] - first["rssanon_kib"])
        for name in ("fds", "threads", "arenas"):
            if own[name] > first[name]:
                found.append(f"the client leaks {name}: {own[name]}, {first[name]} before the first fault: {observe.told(held[name], record['own held'][name])}")
        if own["rssanon_kib"] > first["rssanon_kib"] + OWN_KIB_MORE:
            found.append(f"the client leaks memory: {own['rssanon_kib']} KiB, {first['rssanon_kib']} before the first fault")
    if "sidecar" not in record or client.engine not in figures.first:
        return found
    start, now = figures.first[client.engine], record["sidecar"] | {"lanes": record["lanes"]}
    was, are = figures.held[client.engine], record["sidecar held"]
    beside = [f["threads"] - f["lanes"] for f in (start, now)]
    figures.high("sidecar descriptors more", now["fds"] - start["fds"])
    figures.high("sidecar threads beside lanes more", beside[1] - beside[0])
    figures.high("descriptors of a lane more", now["lane_fds_max"] - start["lane_fds_max"])
    figures.high("sidecar memory more (KiB)", now["rssanon_kib"] - start["rssanon_kib"])
    if now["fds"] > start["fds"]:
        found.append(f"the sidecar leaks descriptors: {now['fds']}, {start['fds']} before the first fault: {observe.told(was['fds'], are['fds'])}")
    if beside[1] > beside[0] + PROBES:
        lanes = [f"{f['threads']} with {f['lanes']} lanes" for f in (now, start)]
        found.append(f"the sidecar leaks threads: {lanes[0]}, {lanes[1]} before the first fault: {observe.told(was['threads'], are['threads'])}")
    if now["lane_fds_max"] > start["lane_fds_max"] + LANE_FDS_MORE:
        found.append(f"a lane leaks descriptors: {now['lane_fds_max']}, {start['lane_fds_max']} before the first fault")
    if now["rssanon_kib"] > start["rssanon_kib"] + ANON_KIB_MORE:
        found.append(f"the sidecar leaks memory: {now['rssanon_kib']} KiB, {start['rssanon_kib']} before the first fault")
    return found


def enough(soak: Soak) -> None:
    """A soak that has shown nothing is no good one."""
    f, model = soak.figures, soak.model
    seen = {"loads": f.counted["loaded"], "loads that had to hit": model.had_to_hit, "canaries": f.counted["canaries"], "deadlines": f.late["deadline"]}
    seen |= {code: f.codes[code] for code in ("CORRUPT", "IO_ERROR", "MOUNT_SUSPENDED", "NOT_FOUND")} | {"deaths of sidecars": soak.counts["sidecar deaths"]}
    nothing = [name for name, count in seen.items() if not count]
    if nothing and soak.options.seconds >= ENOUGH_S and not soak.plant:
        soak.violation("nothing was seen", f"in {soak.options.seconds} s not one of {nothing}")


def left_behind(soak: Soak) -> None:
    """Temporaries of living writers; those of sidecars that were killed are counted only, nobody can remove them."""
    living = [f"f{client.incarnation & 0xFFFFFF:07x}" for client in soak.clients if client.quiet]
    if any(violation.kind == "not back" for violation in soak.found):
        return
    for mount in soak.mounts:
        looked = mount.meddler.wait(do="look", root="store", living=living)
        if "writers" not in looked:
            soak.violation("left behind", f"kv{mount.number} cannot be looked at: {looked}")
            continue
        for hex_name, writer in looked["writers"].items():
            count = looked["temporaries"].get(writer, 0)
            born_us = next(client.born_us for client in soak.clients if hex_name == f"f{client.incarnation & 0xFFFFFF:07x}")
            # On a read-only mount nothing can be removed either.
            excused = LANES * sum(fault.kind == "erofs" and fault.mount == mount.number and fault.end_us > born_us for fault in soak.model.faults)
            if count > excused:
                soak.violation("left behind", f"kv{mount.number}: {count} temporaries of the living writer {writer} ({hex_name}), nothing is under way")
        soak.figures.leftovers[f"kv{mount.number} temporaries of killed sidecars, at most"] = max(
            soak.figures.leftovers[f"kv{mount.number} temporaries of killed sidecars, at most"], sum(looked["temporaries"].values())
        )
        swept = mount.meddler.wait(do="sweep", root="store", living=list(looked["writers"].values()))
        soak.figures.leftovers["swept"] += swept.get("removed", 0)


def processes(soak: Soak) -> None:
    """In our process namespace nobody is left but us and its first process. Killed sidecars are reaped there as soon as the kernel lets go."""
    limit = time.monotonic() + 5
    while left := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid not in (1, os.getpid())]:
        if time.monotonic() > limit:
            soak.violation("left behind", f"processes: {[(pid, link(pid)) for pid in left]}")
            return
        time.sleep(0.02)


def link(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError as error:
        return str(error.strerror)
