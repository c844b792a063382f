"""What the installed vLLM can do, and what the connector therefore does: how it loads, and how it says that a load failed.

Pure functions over `Detected`, a bag of facts that `carriers.detect()` reads off vLLM by attribute and signature, never by
version number. Surprising: "nothing" is a possible answer. Where a failed load could not be told to vLLM, or where vLLM
would fail the request for it, no hit is ever claimed, and the start-up log says what to set instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LoadMode = Literal["staged", "async", "none"]
FailureBackend = Literal["failed_recving", "block_ids", "none"]
Policy = Literal["recompute", "fail"]

SET_RECOMPUTE = """--kv-transfer-config '{"kv_load_failure_policy": "recompute", …}'"""


@dataclass(frozen=True)
class Detected:
    """Read off the installed vLLM and its configuration."""

    worker_meta: bool
    """Workers can tell the scheduler side something each step (vLLM ≈ 0.18)."""
    failed_recving: bool
    """A failed load is reported by request id (vLLM ≈ 0.30)."""
    load_errors: bool
    """A failed load is reported by block ids (vLLM 0.11.1)."""
    hma: bool
    """Connectors can take part in the hybrid KV cache manager (vLLM 0.11.1)."""
    handshake: bool
    """Workers can tell the scheduler side something at start-up."""
    policy: Policy | None
    """kv_load_failure_policy; None: this vLLM has no such option, and recomputes."""
    groups: int = 1
    """KV cache groups; 0: not known in this process."""
    holds_aborted: bool = True
    """The blocks of a request that is aborted while it loads stay its own until the load is over (since 0.16)."""
    world_size: int = 1
    role: str = "kv_both"
    version: str = "unknown"


@dataclass(frozen=True)
class Features:
    """What was detected, and what follows."""

    worker_meta: bool
    failed_recving: bool
    hma: bool
    handshake: bool
    policy: Policy | None
    failure_backend: FailureBackend
    load_mode: LoadMode
    claims: bool
    """False: no hit is ever claimed. Stores go on: they can be loaded after the configuration was mended."""
    reasons: tuple[str, ...]
    """One sentence per fact, for the start-up log."""
    holds_aborted: bool = True


def decide(detected: Detected, asked: str, *, load: bool = True) -> Features:
    """`asked` is the option load_mode: auto, staged or async; `load`: the option and the role want loads at all."""
    backend, backend_reason = _failure_backend(detected)
    if not load:
        mode: LoadMode = "none"
        reason = "Nothing is loaded: " + (
            "kv_role is kv_producer." if detected.role == "kv_producer" else "the option load is false."
        )
    else:
        mode, reason = _load_mode(detected, asked, backend)
    return Features(
        worker_meta=detected.worker_meta,
        failed_recving=detected.failed_recving,
        hma=detected.hma,
        handshake=detected.handshake,
        policy=detected.policy,
        failure_backend=backend,
        load_mode=mode,
        claims=mode != "none",
        reasons=(reason, _policy_reason(detected.policy, mode), backend_reason),
        holds_aborted=detected.holds_aborted,
    )


def _failure_backend(detected: Detected) -> tuple[FailureBackend, str]:
    if detected.failed_recving:
        return "failed_recving", "A failed load is reported by request id (failed_recving)."
    if detected.groups > 1:
        return "none", (
            f"vLLM {detected.version} cannot be told of a failed load on a model with {detected.groups} KV cache groups: "
            "only failed_recving can, which this version does not have."
        )
    if detected.load_errors:
        return "block_ids", "A failed load is reported by block ids."
    return "none", f"vLLM {detected.version} cannot be told of a failed load."


def _load_mode(detected: Detected, asked: str, backend: FailureBackend) -> tuple[LoadMode, str]:
    if backend == "none":
        # Staged, too: a copy that fails after its claim must be told, however rare it is.
        return "none", "No hit is claimed, because a failed load could not be reported; use vLLM 0.30 or later."
    refuses_async = detected.policy == "fail"
    if detected.worker_meta and (asked != "async" or refuses_async):
        if asked == "async":
            return "staged", (
                "Load mode is staged although async was asked for: kv_load_failure_policy is fail, and would fail every "
                f"request whose load comes late. For async, set {SET_RECOMPUTE}."
            )
        return "staged", (
            f"Load mode is staged{'' if asked == 'staged' else ' (auto)'}: a hit is claimed only when its bytes are in memory."
        )
    if refuses_async:
        return "none", (
            "No hit is claimed: kv_load_failure_policy is fail, which fails every request whose load comes late, and "
            + (
                f"vLLM {detected.version} has no worker metadata, which load mode staged needs. "
                if not detected.worker_meta
                else ""
            )
            + f"Set {SET_RECOMPUTE}."
        )
    if asked == "staged":
        return "none", (
            f"No hit is claimed: load_mode staged was asked for, but vLLM {detected.version} has no worker metadata. "
            "Set load_mode to auto or async."
        )
    why = "" if asked == "async" else f" (auto; vLLM {detected.version} has no worker metadata, which staged needs)"
    return "async", f"Load mode is async{why}: a hit is claimed when it is known to be stored, a late load is recomputed."


def _policy_reason(policy: Policy | None, mode: LoadMode) -> str:
    if policy is None:
        return "kv_load_failure_policy does not exist in this vLLM: it always recomputes."
    if policy == "fail" and mode == "staged":
        return (
            "kv_load_failure_policy is fail: harmless in staged mode but for a copy within memory that fails; "
            f"to be safe there too, set {SET_RECOMPUTE}."
        )
    return f"kv_load_failure_policy is {policy}."
