"""What must be true of an arm, as (name, what was measured, bound, true or not). The bounds in seconds are promises; noise is measured.

Noise comes from the two calm phases of the same server life, which compute the same amount beside the same stream as the hang does:
  one at a time     largest minus smallest of all calm requests, at least 10 % of their median (few samples underestimate a spread)
  the stream's gap  difference of the two phases' largest gaps, at least half of the larger: the largest of thousands has a long tail
"""
from __future__ import annotations

from statistics import median
from typing import NamedTuple

BURST_LATE_MAX_S = 2.0  # beyond the no-cache time
MODELS_MAX_S = 0.25
HIT_AGAIN_MAX_S = 1.0
STOP_MAX_S = 5.0


class Check(NamedTuple):
    name: str
    measured: str
    bound: str
    passed: bool


def own_no_cache_s(m: dict) -> list[float]:
    """Of the i-th of eight at once: the mean of the i-th in the calm phases."""
    first, second = (phase["burst"] for phase in m["calm"])
    return [(a + b) / 2 for a, b in zip(first, second)]


def single_no_cache(m: dict) -> tuple[list[float], float]:
    """All calm times of one at a time, and their noise."""
    times = [s for phase in m["calm"] for s in phase["singles"]]
    return times, max(max(times) - min(times), 0.1 * median(times))


def gap_bound_s(m: dict) -> float:
    gaps = [phase["gap_s"] for phase in m["calm"]]
    return max(gaps) + max(max(gaps) - min(gaps), 0.5 * max(gaps))


def late_s(m: dict) -> list[float]:
    """How much later than its no-cache time each of the eight was answered; endless where it was not."""
    return [(a["seconds"] if a["seconds"] is not None else float("inf")) - own for a, own in zip(m["burst"], own_no_cache_s(m))]


def controls(m: dict) -> list[Check]:
    """Of every arm: the experiment shows what it claims to show."""
    hits, probe, held = m["hits"], m["probe"], m["held"]
    return [
        Check("without a hang, stored prompts are hits", f"{sum(h['hit'] for h in hits)} of {len(hits)}", "all",
              all(h["hit"] and h["exact"] for h in hits)),
        Check("another prefix gives other tokens", str(m["prefix_matters"]), "True", m["prefix_matters"]),
        Check("prompts of the calm phases are no hits", str(all(p["not_hits"] for p in m["calm"])), "True", all(p["not_hits"] for p in m["calm"])),
        Check("our own reader is stuck, from the start of the hang to its end", f"{probe['state']}, {probe['late']} in {probe['where'] or '?'}",
              "D, D", probe["state"] == probe["late"] == "D"),
        Check("and returns after the resume", str(probe["returned"]), "True", probe["returned"]),
        Check("the arm's own reads are held back by the device", f"{held['early']}", "more reads than the probe's", held["early"].get("read", 0) > 1),
    ]


def promises(m: dict) -> list[Check]:
    late, burst, later = late_s(m), m["burst"], m["later"]
    singles, noise = single_no_cache(m)
    times = [a["seconds"] if a["seconds"] is not None else float("inf") for a in later]
    later_bound, each_bound = median(singles) + noise, max(singles) + noise
    hit, stop = m["recover"]["first_hit"], m["stop"]
    models = max(m["hang"]["models_s"], m["recover"]["models_s"])
    again = hit["answered_s"] if hit else float("inf")
    return [
        Check("8 at once in the hang: 200 OK", f"{sum(a['status'] == 200 for a in burst)} of 8", "8", all(a["status"] == 200 for a in burst)),
        Check("  later than their own no-cache time by", f"{max(late):+.2f} s at most", f"{BURST_LATE_MAX_S:.2f} s", max(late) <= BURST_LATE_MAX_S),
        Check("  token-exact", f"{sum(a['exact'] for a in burst)} of 8", "8", all(a["exact"] for a in burst)),
        Check("the stream's largest gap", f"{m['hang']['gap_s'] * 1e3:.0f} ms", f"{gap_bound_s(m) * 1e3:.0f} ms (calm + noise)",
              m["hang"]["gap_s"] <= gap_bound_s(m) and m["hang"]["tokens"] > 0),
        Check("/v1/models, slowest", f"{models * 1e3:.0f} ms", f"{MODELS_MAX_S * 1e3:.0f} ms", models <= MODELS_MAX_S),
        Check("nothing else failed meanwhile", str(m["hang"]["errors"] + m["recover"]["errors"]), "[]", not m["hang"]["errors"] + m["recover"]["errors"]),
        Check("later in the hang, median", f"{median(times):.2f} s", f"{later_bound:.2f} s (no-cache + noise)", median(times) <= later_bound),
        Check("  slowest", f"{max(times):.2f} s", f"{each_bound:.2f} s (slowest no-cache + noise)", max(times) <= each_bound),
        Check("  200 OK and token-exact", f"{sum(a['exact'] for a in later)} of {len(later)}", "all", all(a["exact"] for a in later)),
        Check("after the resume, the first hit is answered after", f"{again:.2f} s", f"{HIT_AGAIN_MAX_S:.2f} s", again <= HIT_AGAIN_MAX_S and hit["exact"]),
        Check("SIGTERM in a hang, gone after", "still there" if stop["seconds"] is None else f"{stop['seconds']:.2f} s", f"{STOP_MAX_S:.2f} s",
              stop["seconds"] is not None and stop["seconds"] <= STOP_MAX_S and bool(stop["held"])),
    ]


def difference(m: dict) -> list[Check]:
    """Of the plain arm: it does hang. Were it not so, the other arms would have been shown nothing."""
    burst = [a["seconds"] or float("inf") for a in m["burst"]]
    return [
        Check("8 at once in the hang: answered only after the resume", f"{min(burst):.1f} to {max(burst):.1f} s", f"above {m['hang_s']:.0f} s",
              min(burst) >= m["hang_s"] - 0.5),
        Check("a stored prompt is a hit again after the resume", str(bool(m["recover"]["first_hit"])), "True", bool(m["recover"]["first_hit"])),
    ]


def checks(m: dict) -> list[Check]:
    if "failed" in m:
        return [Check("the arm ran to its end", m["failed"].splitlines()[0], "", False)]
    return controls(m) + (difference(m) if m["arm"] == "plain" else promises(m))
