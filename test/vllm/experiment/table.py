"""The measured arms as text: one row per question, one column per arm, then every check with its bound."""
from __future__ import annotations

from statistics import median

from criteria import Check, late_s, own_no_cache_s, single_no_cache

WIDTH = 24


def span(values: list[float | None]) -> str:
    there = [v for v in values if v is not None]
    text = f"{min(there):.2f} – {max(there):.2f} s" if there else "none"
    return text if len(there) == len(values) else f"{text}, {len(values) - len(there)} not"


def rows(m: dict) -> list[tuple[str, str]]:
    stop, hit = m["stop"], m["recover"]["first_hit"]
    singles, noise = single_no_cache(m)
    return [
        ("no cache, 8 at once", span(own_no_cache_s(m))),
        ("no cache, one at a time (median ± noise)", f"{median(singles):.2f} ± {noise:.2f} s"),
        ("hit without a hang, one at a time", f"{span([a['seconds'] for a in m['hits']])}"),
        ("the hang", f"{m['hang']['seconds']:.1f} s"),
        ("8 stored prompts at once in the hang", span([a["seconds"] for a in m["burst"]])),
        ("  later than their no-cache time by", f"{max(late_s(m)):+.2f} s at most"),
        ("  200 OK / token-exact", f"{sum(a['status'] == 200 for a in m['burst'])} / {sum(a['exact'] for a in m['burst'])}"),
        ("stored prompts later in the hang", span([a["seconds"] for a in m["later"]])),
        ("stream, largest gap: calm, calm", " , ".join(f"{p['gap_s'] * 1e3:.0f}" for p in m["calm"]) + " ms"),
        ("stream, largest gap: hang", f"{m['hang']['gap_s'] * 1e3:.0f} ms"),
        ("/v1/models, slowest: calm", f"{max(p['models_s'] for p in m['calm']) * 1e3:.0f} ms"),
        ("/v1/models, slowest: hang", f"{m['hang']['models_s'] * 1e3:.0f} ms"),
        ("  our own lateness, taken off: at most", f"{m['hang']['lag_s'] * 1e3:.0f} ms"),
        ("first hit after the resume: sent, answered", f"{hit['sent_s']:.2f} , {hit['answered_s']:.2f} s" if hit else "none"),
        ("SIGTERM in a hang, clients hang up 2 s later", "not within 10 s" if stop["seconds"] is None else f"{stop['seconds']:.2f} s"),
        ("SIGTERM without a hang: gone after", "not within 30 s" if m["stop_calm_s"] is None else f"{m['stop_calm_s']:.2f} s"),
        ("stored", f"{m['files']} files, {m['stored_mib']:.0f} MiB"),
    ]


def print_table(arms: list[dict]) -> None:
    ran = [m for m in arms if "failed" not in m]
    columns = [dict(rows(m)) for m in ran]
    names = list(dict.fromkeys(name for m in ran for name, _ in rows(m)))
    print(f"\n{'':44}" + "".join(f"{m['arm']:>{WIDTH}}" for m in ran))
    for name in names:
        print(f"{name:44}" + "".join(f"{column.get(name, ''):>{WIDTH}}" for column in columns))


def print_checks(arm: str, found: list[Check]) -> None:
    print(f"\n{arm}")
    for each in found:
        print(f"  {'ok  ' if each.passed else 'FAIL'} {each.name:62} {each.measured:26} bound: {each.bound}")
