"""A client at rest, after the last fault ended: everything must come back, both mounts must be of use again, and what it holds is counted."""

from __future__ import annotations

import os
import time
from typing import Any

from kvlane import Client, SidecarGone
from kvlane.errors import Saturated, SlotNotLeased

import observe
import payload
from answers import Answers
from asking import NAMESPACE, SLOTS

BACK_S = 12.0
"""From the resume until every slot, arena and answer is back, and every mount is served again. The client's own backoff is in it."""
USABLE_S = 10.0


def wait_back(client: Client, answers: Answers) -> dict[str, Any]:
    """What is not back in time is a leak, and named. The sidecar's stats, or nothing."""
    answers.look_at_canaries(everything=True)
    limit = time.monotonic() + BACK_S
    left = "nothing was looked at"
    stats: Any = None
    while left and time.monotonic() < limit:
        time.sleep(0.05)
        left = _missing(client)
        if left:
            continue
        try:
            stats = client.stats(1000)
        except Exception as error:
            left = f"stats: {error!r}"
            continue
        left = "; ".join(observe.not_back(stats))
    if left:
        kind = "lost answer" if left.startswith("answers") else "not back"
        about = f"{BACK_S} s after the last fault: {left}; client {client.client_stats()}; notes {client.notes()[-4:]}; log {client.sidecar_log()[-5:]}"
        answers.log.violation(kind, about)
    return {"stats": stats} if stats and not left else {}


def _missing(client: Client) -> str:
    facts = client.client_stats()
    if facts["unanswered"]:
        return f"answers to {facts['unanswered']} requests"
    if client.state != "up":
        return f"the sidecar: {client.state}, {client.reason}"
    for name in ("slots_quarantined", "unreaped_pids", "arenas_abandoned"):
        if facts[name]:
            return f"{name} {facts[name]}"
    return "" if facts["slots_free"] == SLOTS else f"slots: {facts['slots_free']} of {SLOTS} free"


def measure(client: Client, answers: Answers, back: dict[str, Any]) -> dict[str, Any]:
    facts = client.client_stats()
    wrong = {name: facts[name] for name in ("unknown_answers", "unknown_events", "bad_slots_freed", "callbacks_dropped") if facts[name]}
    if wrong:
        answers.log.violation("answers to nothing", f"{wrong}; notes {client.notes()[-6:]}")
    own, own_held, passing = observe.at_rest(os.getpid())
    figures: dict[str, Any] = {"own": own, "own held": own_held, "passing": passing, "life": client.life}
    if back and client.pid:
        figures["sidecar"], figures["sidecar held"], _ = observe.at_rest(client.pid, lanes=True)
        figures["lanes"] = sum(c["lanes"] for d in back["stats"]["devices"] for c in d["classes"].values())
    names = ("sent", "answered", "settled_by_client", "late_answers", "refused", "restarts", "slots_freed")
    figures["client"] = {name: facts[name] for name in names}
    return figures | answers.taken()


def usable(client: Client, answers: Answers, incarnation: int) -> None:
    """Each mount takes and gives a block again. The block stays: its header tells the writer's name (meddle.py)."""
    for mount in range(2):
        limit, said = time.monotonic() + USABLE_S, ""
        while time.monotonic() < limit:
            said = _once(client, answers, mount, incarnation)
            if not said:
                break
            time.sleep(0.02)
        if said:
            answers.log.violation("not back", f"mount {mount} is not usable {USABLE_S} s after everything was back: {said}")


def _once(client: Client, answers: Answers, mount: int, incarnation: int) -> str:
    key, name, own = 0xF000 + (incarnation & 0xFFF), f"kv{mount}", f"f{incarnation & 0xFFFFFF:07x}"
    try:
        with client.leasing(1, mount=name, use="store") as [slot]:
            payload.write(slot.view, mount, key, 1, 8192)
            stored = client.wait(client.store([own], [slot], namespace=NAMESPACE, bytes=8192, mount=name, replace=True, timeout_ms=1000))
            if not stored.ok:
                return f"store: {stored.code} {stored.message}"
        with client.leasing(1, mount=name, use="load") as [slot]:
            payload.poison(slot.view, 8192)
            loaded = client.wait(client.load([own], [slot], namespace=NAMESPACE, bytes=8192, mount=name, timeout_ms=1000))
            if not loaded.ok:
                return f"load: {loaded.code} {loaded.message}"
            payload.read(slot.view, mount, key, 8192)
    except payload.WrongBytes as wrong:
        answers.log.violation("wrong bytes", str(wrong))
    except (SidecarGone, Saturated, SlotNotLeased) as error:
        return repr(error)
    return ""
