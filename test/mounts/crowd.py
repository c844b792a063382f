"""Many hosts, one store: a sidecar on each, in a network and a mount namespace of its own, and the same keys written, read, replaced and
removed by all of them at once. Half-way one host's cable is cut, and mended.

A load brings a block of this key that somebody really stored, whole and not answered as refused, or a code. On a file system that all hosts see at
once (an ext4 of one kernel) it is also the newest one, and no acknowledged block is missed. Elsewhere a client's cache of names and attributes may
show what was a moment ago, which is measured; in the end all hosts see the same. On GlusterFS alone that is counted and not judged, nor are the
temporaries: there a rename and an unlink of one name can stop each other until GlusterFS ends both by closing a connection, which is waited for; the
rename is half done then, and the sidecar's own clean-up may have been lost with the connection.
"""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import places
from acceptance import flip
from checks import Checks, eventually
from hosts import Host
from member import Ledger, Member, members, now_us, version_of
from places import AT, Place, unmount_from
from servers import FRAME_S, Server
from stage import LATE_MS, NAMESPACE, Stage

if TYPE_CHECKING:
    from main import Run

#: What a load may say instead of a block. CORRUPT is not among them: nobody damages anything here.
FAIR = {"NOT_FOUND", "DEADLINE_EXCEEDED", "MOUNT_SUSPENDED", "KEY_BUSY", "SATURATED", "IO_ERROR"}
#: What the ledger says of a host that has not yet heard of what another did.
NOT_HEARD = {"stale", "lost block", "ghost"}
AGREE_S = 40.0
STUCK_S = FRAME_S + 15.0  # a call of the last moment

Say = Callable[..., None]


def crowd(
    checks: Checks, name: str, hosted: list[tuple[Host, str]], seconds: float, *, cut: bool = False, waits: bool = True, caching: bool = False,
    agreeing: bool = True, vandal: Path | None = None, member: type[Member] = Member, **options: Any,
) -> None:  # fmt: skip
    """`waits`: until one host's caches know what another did, however long they take for it. `caching`: a host may not have heard yet.
    `agreeing`: but in the end it has."""

    def say(good: object, sentence: str, seen: object = None) -> None:
        checks.check(good, f"crowd on {name}: {sentence}", seen)

    ledger = Ledger()
    with members(hosted, ledger, member, **options) as crew:
        eventually("every mount is known", lambda: all(one.kv.stats(5000)["mounts"][0].get("fs_type") for one in crew), 20, 0.02)
        for key in ledger.keys:
            crew[0].store(key=key)
        began = time.monotonic()
        for one in crew:
            one.start(seconds)
        if vandal is not None:
            damage_some(vandal, seconds)
        lost = crew[-1]
        window = cut_and_mend(lost, seconds) if cut else (0.0, 0.0)
        for one in crew:
            one.thread.join(seconds + 30)
            say(not one.thread.is_alive() and one.error is None, f"{one.place.name} works to the end", one.error)
        took = time.monotonic() - began
        figures = judge(say, crew, [one for one in crew if not cut or one is not lost])
        checks.fact(f"crowd {name}", "seen", f"{len(crew)} hosts, {figures.pop('answers')} answers in {took:.1f} s; {figures}")
        if cut:
            during = sum(window[0] < when < window[1] for one in crew[:-1] for when in one.good_at)
            say(during > 0, "the others go on while one host's cable is cut", during)
            say(hits_again(lost, ledger.keys[0]), "the host whose cable was mended hits again", dict(lost.counts))
            checks.fact(f"crowd {name}", "cut", f"one host for {window[1] - window[0]:.1f} s: {during} good answers elsewhere meanwhile")
        with contextlib.suppress(TimeoutError):
            eventually("nothing is stuck", lambda: not stuck_of(crew), STUCK_S, 0.05)
        say(not stuck_of(crew), "nothing is stuck any more", stuck_of(crew))
        with ledger.lock:
            ledger.model.settled(now_us())
        caches(checks, name, crew, ledger, say, waits=waits)
        told = by_the_ledger(say, ledger, caching=caching)
        in_the_end(checks, name, say, crew, ledger, agreeing=agreeing)
        told |= {f"{kind}, in the end": count for kind, count in by_the_ledger(say, ledger, caching=caching).items()}
        checks.fact(f"crowd {name}", "ledger", f"{ledger.model.had_to_hit} loads had to hit and did; not heard of yet: {told or 'nothing'}")


def stuck_of(crew: list[Member]) -> list[str]:
    return [f"{one.place.name}: {found}" for one in crew for found in one.kv.stuck(5000)]


def cut_and_mend(lost: Member, seconds: float) -> tuple[float, float]:
    assert lost.place.host is not None
    time.sleep(seconds * 0.3)
    lost.place.host.cut()
    began = time.monotonic()
    time.sleep(seconds * 0.3)
    lost.place.host.mend()
    return began, time.monotonic()


def hits_again(lost: Member, key: str) -> bool:
    with contextlib.suppress(TimeoutError):
        eventually("the cut host hits", lambda: lost.store(key=key).ok and lost.load([key])[key] == "OK", 60, 0.02)
        return True
    return False


def judge(say: Say, crew: list[Member], others: list[Member]) -> dict[str, Any]:
    counts: collections.Counter[str] = collections.Counter()
    errors: collections.Counter[str] = collections.Counter()
    for one in crew:
        counts.update(one.counts)
        errors.update(one.errors)

    def of(word: str) -> dict[str, int]:
        return {key.removeprefix(word): count for key, count in sorted(counts.items()) if key.startswith(word)}

    wrong = [line for one in crew for line in one.wrong]
    say(not wrong, "every load is whole, absent or an error, never torn or another key's", wrong[:5])
    say(set(of("load ")) <= FAIR | {"OK", "WRONG"}, "and says nothing else", of("load "))
    say(not errors, "no load says IO_ERROR, since every file system here is well or hangs", dict(errors))
    late_ms = max(one.late_ms for one in crew)
    say(late_ms < LATE_MS, "every request is answered by its deadline", f"{late_ms:.0f} ms late")
    for word in ("load OK", "replace OK", "remove OK", "lookup OK"):
        say(all(one.counts[word] > 0 for one in others), f"each host has a {word}", [one.counts[word] for one in crew])
    asked = sum(count for key, count in counts.items() if not key.startswith("hit "))
    return {"answers": asked, "loads": of("load "), "a look-up's hits, loaded at once": of("hit then "), "latest_ms": round(late_ms)}


def by_the_ledger(say: Say, ledger: Ledger, *, caching: bool) -> dict[str, int]:
    """Judges all answers since the last time, and counts what a host had not yet heard of."""
    with ledger.lock:
        wrong = [text for _, text in ledger.model.judge()]
    late = [text for text in wrong if caching and text.split(":")[0] in NOT_HEARD]
    hard = [text for text in wrong if text not in late]
    say(not hard, "by the ledger no answer is wrong: nothing refused appears" + ("" if caching else ", nothing is stale, nothing is lost"), hard[:3])
    return dict(collections.Counter(text.split(":")[0] for text in late))


def in_the_end(checks: Checks, name: str, say: Say, crew: list[Member], ledger: Ledger, *, agreeing: bool) -> None:
    aside = sum(one.kv.stats(5000)["files_set_aside"] for one in crew)
    say(aside == 0, "no good block is set aside", aside)

    def differ() -> dict[str, list[Any]]:
        for one in crew:
            for key in ledger.keys:
                one.load([key])
        found = {key[:12]: [one.seen.get(key) for one in crew] for key in ledger.keys}
        return {key: versions for key, versions in found.items() if len(set(versions)) > 1}

    with contextlib.suppress(TimeoutError):
        eventually("all hosts see the same", lambda: not differ(), AGREE_S, 0.2)
    different = differ()
    if agreeing or not different:
        say(not different, "in the end all hosts see the same blocks", different)
    else:
        checks.fact(f"crowd {name}", "in the end", f"{len(different)} of {len(ledger.keys)} keys are not the same on all hosts: {different}")
    with ledger.lock:  # what they saw until then
        ledger.model.loads.clear()
        ledger.model.failures.clear()
    for one in crew:
        codes: dict[str, str] = {}
        for key in ledger.keys:
            codes |= one.load([key])
        say(set(codes.values()) <= {"OK", "NOT_FOUND"}, f"in the end {one.place.name} loads every block whole, or it is absent", codes)
    stage = Stage(checks, crew[0].place, "", crew[0].kv)

    def left() -> list[str]:
        return [file for file in stage.files() if ".tmp" in file and file.startswith("blocks/")]

    with contextlib.suppress(TimeoutError):  # a name may be in this host's caches for a while
        eventually("no temporary", lambda: not left(), 25, 0.2)
    if agreeing or not left():
        say(not left(), "no temporary is left", left())
    else:
        checks.fact(f"crowd {name}", "temporaries", f"left: {left()}")


def caches(checks: Checks, name: str, crew: list[Member], ledger: Ledger, say: Say, *, waits: bool) -> None:
    """What one host sees, and when, of what another has just done."""
    here, there = crew[0], crew[1]
    key = ledger.keys[1]
    told = {}

    def until(what: str, true: Callable[[], bool]) -> None:
        try:
            told[what] = f"{eventually(what, true, 40 if waits else 1.5, 0.05):.2f} s"
        except TimeoutError:
            told[what] = "later than 40 s" if waits else "later than 1.5 s"
            if waits:
                say(False, f"{what} within 40 s")

    def done(ask: Callable[[], Any]) -> None:
        """A breaker may be open still."""
        eventually("it is done", lambda: ask().ok, 20, 0.1)

    done(lambda: here.store(key=key, replace=True))
    there.present([key])
    codes: collections.Counter[str] = collections.Counter()

    def replaced() -> bool:
        codes[there.load([key])[key]] += 1
        return there.seen.get(key) == (here.number, here.version)

    until("a new block is seen", lambda: there.load([key])[key] == "OK")
    done(lambda: here.store(key=key, replace=True))
    until("a replacement is seen", replaced)
    done(lambda: here.remove(key))
    codes_after: collections.Counter[str] = collections.Counter()

    def removed() -> bool:
        if there.present([key])[0] is False:
            return True
        codes_after[there.load([key])[key]] += 1
        return False

    until("a removal is seen", removed)
    say(set(codes) <= {"OK", "NOT_FOUND"}, "a block replaced elsewhere is the old one, the new one or absent", dict(codes))
    say(set(codes_after) <= {"OK", "NOT_FOUND"}, "a hit that is none any more costs a NOT_FOUND", dict(codes_after))
    checks.fact(f"crowd {name}", "caches", f"seen on the other host: {told}; loads after a false hit: {dict(codes_after)}")


def damage_some(store: Path, seconds: float) -> None:
    end = time.monotonic() + seconds * 0.8
    while time.monotonic() < end:
        for path in list(store.glob(f"blocks/{NAMESPACE}/*/*.kvb"))[:6]:
            with contextlib.suppress(OSError, IndexError):
                flip(str(path), 4096 + 1000)
        time.sleep(0.05)


@contextlib.contextmanager
def on_server(server: Server, count: int) -> Iterator[list[tuple[Host, str]]]:
    hosts: list[Host] = []
    try:
        for number in range(count):
            hosts.append(Host(f"host {number + 1}"))
            server.mount(hosts[-1], AT)
        yield [(host, f"{AT}/crowd") for host in hosts]
        for host in hosts:
            unmount_from(host)
    finally:
        for host in hosts:
            host.end()


@contextlib.contextmanager
def on_ext4(count: int) -> Iterator[tuple[list[tuple[Host, str]], Place]]:
    with places.local("ext4") as place:
        hosts: list[Host] = []
        try:
            for number in range(count):
                hosts.append(Host(f"host {number + 1}"))  # a copy of all mounts
                hosts[-1].run("mkdir", "-p", AT)
                hosts[-1].run("mount", "--bind", place.root, AT)
            yield [(host, f"{AT}/crowd") for host in hosts], place
        finally:
            for host in hosts:
                host.end()


def crowds(run: Run) -> None:
    checks, count, seconds = run.checks, 5 if run.full else 3, 30.0 if run.full else 4.0
    with checks.story("crowd on ext4"), on_ext4(count) as (hosted, _):
        crowd(checks, "ext4", hosted, seconds / 2)
    for kind in ("sshfs", "gluster"):
        if kind in run.starting and kind in run.crowded:
            with checks.story(f"crowd on {kind}"), on_server(run.starting[kind].get(), count) as hosted:
                crowd(checks, kind, hosted, seconds, cut=True, waits=run.full, caching=True, agreeing=kind != "gluster")


class Forgetful(Member):
    """The planted fault: each eighth store is answered and never sent."""

    def store(self, *, replace: bool = False, key: str | None = None) -> Any:
        if self.version % 8 != 7:
            return super().store(replace=replace, key=key)
        self.version += 1
        result = SimpleNamespace(ok=True, code=None, failed=(), kept=0, source="sidecar")
        change = self.ledger.begun(key or self.random.choice(self.ledger.keys), version_of(self.number, self.version))
        self.ledger.ended(change, result)
        return result


def forgetful(checks: Checks) -> None:
    with on_ext4(2) as (hosted, _):
        crowd(checks, "ext4", hosted, 1.5, waits=False, member=Forgetful)


def vandalised(checks: Checks) -> None:
    """The planted fault: sidecars that believe every byte, and somebody who flips some."""
    with on_ext4(2) as (hosted, place):
        crowd(checks, "ext4", hosted, 1.5, vandal=place.outside / "crowd", extra_arguments=("--test-unchecked",))
