"""What each load may return, and which code each failure may have. Fed with what the clients logged, judged when all of it is there.

Wrong are:
  a version that nobody stored, that was answered as not stored, or that an acknowledged store or remove had replaced before the load began;
  a miss of a block whose store was acknowledged, when nobody has removed, damaged or overwritten it since; a look-up that says there is what
  cannot be;
  a code that no fault of that time, mount and sidecar explains.
Times are CLOCK_MONOTONIC in microseconds, which all processes share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

FOREVER = 1 << 62
LINGER_US = 1_000_000
"""A fault may show so long after its end: in a lane's suspected root, in a journal, in an answer on its way."""
MISS_LINGER_US = 3_000_000
"""Refusals and deadlines are told apart from those near a fault for the report only: a breaker, a queue that is worked off."""
ASIDE_US = 10_000_000
"""A damaged file may be set aside so long after somebody met it, and then for a moment even a block just stored has no name (damage.ts)."""

State = Literal["open", "never", "maybe", "done"]
Key = tuple[int, int]  # mount, key

ALWAYS = {"NOT_FOUND", "DEADLINE_EXCEEDED", "MOUNT_SUSPENDED", "SATURATED", "KEY_BUSY"}
"""A miss, and the sidecar's right at any time: a machine may be slow. How often they come without a fault is reported."""
NAME_PHASES = {"rename", "unlink", "fsync"}
"""An IO_ERROR here says nothing about whether the name changed: the server may have done it."""
EXPLAINED_BY = {"EIO": ("eio",), "EROFS": ("erofs",), "EMFILE": ("nofile",), "ENFILE": ("nofile",), "ENOMEM": ("memory",), "EAGAIN": ("memory",)}
"""IO_ERROR by errno. Any other errno is one that nobody here provokes."""
UNTOLD = ("eio", "erofs", "nofile", "memory")
"""A look-up that was dropped says why in words only."""
STALLS = ("hang", "delay", "rate", "freeze", "stop")
LIMITS = ("nofile", "memory")


@dataclass
class Change:
    """One store or remove of one key."""

    version: int  # 0: a remove
    start_us: int
    state: State = "open"
    until_us: int = FOREVER  # no effect later than this
    why: str = ""


@dataclass
class Fault:
    kind: str
    mount: int | None  # None: not a mount's
    start_us: int
    end_us: int = FOREVER
    who: str | None = None  # the client process whose sidecar it was; None: everybody's


@dataclass
class Harm:
    """Some time between these a block became damaged."""

    start_us: int
    end_us: int = FOREVER


@dataclass
class Load:
    key: Key
    version: int
    start_us: int
    end_us: int
    who: str


@dataclass
class Looked:
    key: Key
    present: bool
    start_us: int
    end_us: int
    who: str


@dataclass
class Failed:
    op: str
    mount: int
    key: int
    code: str
    errno: str
    source: str
    start_us: int
    end_us: int
    who: str
    phase: str = ""


@dataclass
class Model:
    """`changes` and `faults` grow while it runs; `loads`, `looks` and `failures` are judged and forgotten by `judge()`."""

    changeable_lengths: frozenset[int] = frozenset()
    full_says_eio: frozenset[int] = frozenset()
    """Mounts of which the kernel makes EIO out of a direct write that the full file system took in part: FUSE."""
    changes: dict[Key, list[Change]] = field(default_factory=lambda: defaultdict(list))
    faults: list[Fault] = field(default_factory=list)
    damage: dict[Key, list[Harm]] = field(default_factory=lambda: defaultdict(list))
    loads: list[Load] = field(default_factory=list)
    looks: list[Looked] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    unexplained: Counter[str] = field(default_factory=Counter)
    had_to_hit: int = 0
    """Good loads that would have been wrong as a miss."""
    known: dict[tuple[Key, int], Change] = field(default_factory=dict)

    def begun(self, key: Key, version: int, start_us: int) -> Change:
        change = Change(version, start_us)
        self.changes[key].append(change)
        if version:
            self.known[key, version] = change
        return change

    @staticmethod
    def ended(change: Change, code: str, phase: str, outcome: str, source: str, end_us: int, *, kept: bool | None) -> None:
        """`code` empty: it went well; then `kept` says whether the block was there already (None: of several, some were)."""
        change.until_us, change.why = end_us, code or "ok"
        if not code:
            change.state = "done" if kept is False else "never" if kept else "maybe"
        elif outcome == "unknown" or source == "client" or (code == "IO_ERROR" and phase in NAME_PHASES):
            change.state, change.until_us = "maybe", FOREVER
        else:
            change.state = "never"

    def harm(self, key: Key, start_us: int) -> Harm:
        harm = Harm(start_us)
        self.damage[key].append(harm)
        return harm

    def harmless(self, harm: Harm) -> None:
        """Nothing was damaged after all: it explains nothing."""
        for harms in self.damage.values():
            harms[:] = [one for one in harms if one is not harm]

    def judge(self) -> list[tuple[int, str]]:
        """(when, what) of everything that may not be."""
        wrong = [(load.start_us, text) for load in self.loads if (text := self._load(load))]
        wrong += [(look.start_us, text) for look in self.looks if (text := self._look(look))]
        wrong += [(failed.start_us, text) for failed in self.failures if (text := self._failure(failed))]
        self.loads.clear()
        self.looks.clear()
        self.failures.clear()
        return wrong

    def _replaced(self, key: Key, after_us: int, before_us: int) -> Change | None:
        """A change that was acknowledged, begun after the one and ended before the other."""
        return next((c for c in self.changes[key] if c.state == "done" and c.start_us > after_us and c.until_us < before_us), None)

    def _load(self, load: Load) -> str | None:
        where = f"{load.who}: load of mount {load.key[0]} key {load.key[1]} at {load.start_us} us brought version {load.version:#x}"
        change = self.known.get((load.key, load.version))
        if change is None:
            return f"wrong version: {where}, which nobody stored there"
        if change.start_us > load.end_us:
            return f"wrong version: {where}, which was stored later, at {change.start_us}"
        if change.state == "never":
            return f"stored though refused: {where}, whose store was answered {change.why} at {change.until_us}: it must never appear"
        self.had_to_hit += self._must_be_there(load.key, load.start_us, load.end_us) is not None
        newer = self._replaced(load.key, change.until_us, load.start_us)
        if newer is not None:
            what = f"version {newer.version:#x} was stored" if newer.version else "it was removed"
            return f"stale: {where}, stored until {change.until_us}; {what} from {newer.start_us} to {newer.until_us}"
        return None

    def _look(self, look: Looked) -> str | None:
        if not look.present:
            return self._lost(look.key, look.start_us, look.end_us, f"{look.who}: a look-up")
        removed = max((c.start_us for c in self.changes[look.key] if c.state == "done" and not c.version and c.until_us < look.start_us), default=0)
        stored = any(c.version and (c.state != "never" or c.why == "ok") and c.until_us >= removed and c.start_us <= look.end_us for c in self.changes[look.key])
        if stored or any(harm.end_us >= removed and harm.start_us <= look.end_us for harm in self.damage[look.key]):
            return None
        return f"ghost: {look.who}: a look-up of mount {look.key[0]} key {look.key[1]} at {look.start_us} us found what nobody had stored since {removed}"

    def _must_be_there(self, key: Key, start_us: int, end_us: int) -> Change | None:
        """An acknowledged store, if it is the last that anybody may have done to this key."""
        stored = max((c for c in self.changes[key] if c.version and c.state == "done" and c.until_us < start_us), key=lambda c: c.start_us, default=None)
        if stored is None:
            return None
        for c in self.changes[key]:
            if c is stored or c.state == "never" or c.until_us < stored.start_us or c.start_us > end_us:
                continue
            if not c.version or c.until_us >= start_us:  # what is overwritten while it is read is a miss too
                return None
        harmed = any(harm.start_us <= end_us and harm.end_us + ASIDE_US >= stored.start_us for harm in self.damage[key])
        return None if harmed else stored

    def _lost(self, key: Key, start_us: int, end_us: int, who: str) -> str | None:
        stored = self._must_be_there(key, start_us, end_us)
        if stored is None:
            return None
        where = f"{who} of mount {key[0]} key {key[1]} at {start_us} us found nothing"
        return f"lost block: {where}; version {stored.version:#x} was stored from {stored.start_us} to {stored.until_us}, and nothing came after it"

    def _faulty(self, failed: Failed, kinds: tuple[str, ...], linger_us: int) -> bool:
        return any(
            fault.kind.startswith(kinds)
            and fault.mount in (None, failed.mount)
            and fault.who in (None, failed.who)
            and fault.start_us <= failed.end_us
            and fault.end_us + linger_us >= failed.start_us
            for fault in self.faults
        )

    def _failure(self, failed: Failed) -> str | None:
        code, errno = failed.code, failed.errno

        def fault(*kinds: str) -> bool:
            return self._faulty(failed, kinds, LINGER_US)

        key = (failed.mount, failed.key)
        if code in ALWAYS:
            if code == "NOT_FOUND" and failed.op == "load":
                return self._lost(key, failed.start_us, failed.end_us, f"{failed.who}: a load")
            near = (*STALLS, *LIMITS, "eio", "sigstop", "sigkill", "erofs")
            if code in ("DEADLINE_EXCEEDED", "MOUNT_SUSPENDED", "SATURATED") and not self._faulty(failed, near, MISS_LINGER_US):
                self.unexplained[code] += 1
            return None
        if code == "CORRUPT":
            harms = [harm for harm in self.damage[key] if harm.start_us <= failed.end_us]
            allowed = any(self._replaced(key, harm.end_us, failed.start_us) is None for harm in harms)
        elif code == "LENGTH_MISMATCH":
            allowed = failed.op == "load" and failed.key in self.changeable_lengths
        elif code == "NO_SPACE":
            allowed = fault("enospc")
        elif code == "IO_ERROR":
            allowed = fault(*(UNTOLD if failed.op == "lookup" and not errno else EXPLAINED_BY.get(errno, ())))
            if errno == "EIO" and failed.phase == "write" and failed.mount in self.full_says_eio:
                allowed = allowed or fault("enospc")
        elif code == "WRONG_STORE":
            allowed = fault("eio", *LIMITS)
        elif code == "SIDECAR_GONE":
            allowed = failed.source == "client"  # deaths are accounted for one by one
        elif code == "CANCELLED":
            allowed = True  # the client itself knows whether it asked for that
        else:
            allowed = False
        if allowed:
            return None
        return (
            f"wrong code: {failed.who}: {failed.op} of mount {failed.mount} key {failed.key} from {failed.start_us} to {failed.end_us} us was answered "
            f"{code} {errno} ({failed.phase}) by the {failed.source}, and no fault explains it"
        )

    def settled(self, us: int) -> None:
        """All answers are there and nothing hangs: what may have happened has happened by now, or never will."""
        for changes in self.changes.values():
            for change in changes:
                if change.state in ("open", "maybe"):
                    change.until_us = min(change.until_us, us)

    def forget_before(self, us: int) -> None:
        """What no answer to come can depend on any more, so that an hour costs no more than a minute."""
        for key, changes in self.changes.items():
            last_done = max((c.start_us for c in changes if c.state == "done" and c.until_us < us), default=0)
            kept = [c for c in changes if c.until_us >= last_done]
            self.changes[key] = kept
            for version in {c.version for c in changes} - {c.version for c in kept}:
                self.known.pop((key, version), None)
            self.damage[key] = [harm for harm in self.damage[key] if harm.end_us + ASIDE_US >= last_done]
        self.faults = [fault for fault in self.faults if fault.end_us + MISS_LINGER_US >= us]


def account(model: Model, record: dict[str, Any], begun: dict[tuple[str, int], list[Change]]) -> None:
    """One line of a client's log into the model."""
    who, number = record["who"], record["n"]
    if record["t"] == "begin":
        begun[who, number] = [model.begun((record["mount"], key), version, record["at"]) for key, version in record["changes"]]
        return
    mount, op, start_us, end_us = record["mount"], record["op"], record["at"], record["end"]
    changes = begun.pop((who, number), None)
    kept: bool | None = {0: False, len(record["keys"]): True}.get(record.get("kept", 0))
    for block, key in enumerate(record["keys"]):
        code, phase, outcome, errno, source, version = record["blocks"][block]
        if changes is not None:
            model.ended(changes[block], code, phase, outcome, source, end_us, kept=kept)
        if op == "load" and not code and version:
            model.loads.append(Load((mount, key), version, start_us, end_us, who))
        present = record["present"][block] if record.get("present") else None
        if present is not None:
            model.looks.append(Looked((mount, key), present, start_us, end_us, who))
        if code:
            model.failures.append(Failed(op, mount, key, code, errno, source, start_us, end_us, who, phase))
