"""Which vLLM is loaded from in which way, and when nothing is claimed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvlane.vllm.features import Detected, Features, decide

NEWEST = Detected(
    worker_meta=True, failed_recving=True, load_errors=True, hma=True, handshake=True, policy="recompute", version="0.32"
)
MIDDLE = replace(NEWEST, failed_recving=False, version="0.20")
OLDEST = replace(MIDDLE, worker_meta=False, version="0.13")
BEFORE_POLICY = replace(OLDEST, policy=None, version="0.12")
BLIND = replace(BEFORE_POLICY, load_errors=False, version="0.11")


def said(features: Features) -> str:
    return " ".join(features.reasons)


@pytest.mark.parametrize(
    ("detected", "asked", "mode", "backend"),
    [
        (NEWEST, "auto", "staged", "failed_recving"),
        (NEWEST, "staged", "staged", "failed_recving"),
        (NEWEST, "async", "async", "failed_recving"),
        (replace(NEWEST, policy="fail"), "auto", "staged", "failed_recving"),
        (replace(NEWEST, policy="fail"), "async", "staged", "failed_recving"),
        (replace(NEWEST, groups=2), "auto", "staged", "failed_recving"),
        (MIDDLE, "auto", "staged", "block_ids"),
        (replace(MIDDLE, policy="fail"), "async", "staged", "block_ids"),
        (replace(MIDDLE, groups=2), "auto", "none", "none"),
        (OLDEST, "auto", "async", "block_ids"),
        (OLDEST, "async", "async", "block_ids"),
        (OLDEST, "staged", "none", "block_ids"),
        (replace(OLDEST, policy="fail"), "auto", "none", "block_ids"),
        (replace(OLDEST, policy="fail"), "async", "none", "block_ids"),
        (BEFORE_POLICY, "auto", "async", "block_ids"),
        (BLIND, "auto", "none", "none"),
    ],
)
def test_mode_and_failure_back_end(detected: Detected, asked: str, mode: str, backend: str) -> None:
    features = decide(detected, asked)
    assert (features.load_mode, features.failure_backend) == (mode, backend), said(features)
    assert features.claims == (mode != "none")


def test_where_the_policy_fails_requests_the_log_says_what_to_set() -> None:
    for detected in (replace(NEWEST, policy="fail"), replace(OLDEST, policy="fail")):
        assert '"kv_load_failure_policy": "recompute"' in said(decide(detected, "auto"))
    assert "staged although async was asked for" in said(decide(replace(NEWEST, policy="fail"), "async"))


def test_nothing_is_claimed_on_several_groups_without_failed_recving_and_the_log_says_so() -> None:
    features = decide(replace(MIDDLE, groups=3), "staged")
    assert "3 KV cache groups" in said(features)
    assert "No hit is claimed" in said(features)


def test_a_producer_loads_nothing() -> None:
    features = decide(replace(NEWEST, role="kv_producer"), "auto", load=False)
    assert not features.claims
    assert "kv_producer" in features.reasons[0]


def test_load_false_is_told_as_what_it_is() -> None:
    assert "option load is false" in decide(NEWEST, "auto", load=False).reasons[0]


def test_every_fact_has_one_sentence() -> None:
    for detected in (NEWEST, MIDDLE, OLDEST, BEFORE_POLICY, BLIND):
        features = decide(detected, "auto")
        assert len(features.reasons) == 3
        assert all(sentence.endswith((".", "}'.")) for sentence in features.reasons)


def test_a_vllm_that_gives_away_blocks_that_are_being_loaded_gets_hits_and_is_known_for_it() -> None:
    features = decide(replace(OLDEST, holds_aborted=False), "auto")
    assert (features.load_mode, features.claims, features.holds_aborted) == ("async", True, False)
