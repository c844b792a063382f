"""Which chunks are on storage: asked without waiting, remembered when answered."""

from __future__ import annotations

import pytest
from fakes import Clock
from support import eventually

from kvlane import Client
from kvlane.testing import FakeSidecar
from kvlane.vllm import lookups as lookups_module
from kvlane.vllm.known_keys import KnownKeys
from kvlane.vllm.lookups import Lookups
from kvlane.vllm.stats import Tally


class Bench:
    def __init__(self, kv: Client) -> None:
        self.known = KnownKeys(Clock())
        self.tally = Tally()
        self.lookups = Lookups(kv, self.known, 100, self.tally, Clock())

    def counted(self) -> dict[str, int]:
        data = self.tally.take()
        return {} if data is None else data["c"]


@pytest.fixture
def bench(kv: Client) -> Bench:
    return Bench(kv)


def test_rank_0_is_asked_for_the_chunks_that_are_not_known(fake: FakeSidecar, bench: Bench) -> None:
    bench.known.add("aa")
    lookup = bench.lookups.start(["aa", "bb", "cc"], "model@1")
    request = fake.expect("lookup")
    assert (request["namespace"], request["keys"]) == ("model@1", ["bb0000", "cc0000"])
    assert not bench.lookups.settled(lookup)
    fake.answer(request, present=[True, False], prefix=1, complete=True)
    eventually(lambda: bench.lookups.settled(lookup))
    assert bench.known.leading(["aa", "bb", "cc"]) == 2
    assert bench.known.is_absent("cc")
    assert bench.counted() == {"lookups": 1}


def test_nothing_to_ask_is_answered_at_once(bench: Bench) -> None:
    assert bench.lookups.settled(bench.lookups.start([], "model@1"))
    bench.known.add_absent("aa")
    assert bench.lookups.settled(bench.lookups.start(["aa", "bb"], "model@1"))
    assert bench.counted() == {}


def test_an_answer_whose_request_is_gone_is_as_good(fake: FakeSidecar, bench: Bench) -> None:
    bench.lookups.start(["aa"], "model@1")
    fake.answer(fake.expect("lookup"), present=[True], prefix=1, complete=True)

    def known() -> bool:
        bench.lookups.poll()
        return bench.known.is_present("aa")

    eventually(known)


def test_an_answer_about_a_former_namespace_is_not_believed(fake: FakeSidecar, bench: Bench) -> None:
    lookup = bench.lookups.start(["aa"], "model@1")
    bench.lookups.forget_all()
    assert bench.lookups.settled(lookup)
    fake.answer(fake.expect("lookup"), present=[True], prefix=1, complete=True)
    bench.lookups.poll()
    assert not bench.known.is_present("aa")


def test_what_is_not_known_at_the_deadline_is_a_timeout_and_not_a_miss(fake: FakeSidecar, bench: Bench) -> None:
    lookup = bench.lookups.start(["aa", "bb"], "model@1")
    fake.answer(fake.expect("lookup"), present=[True, None], prefix=1, complete=False)
    eventually(lambda: bench.lookups.settled(lookup))
    assert bench.known.leading(["aa", "bb"]) == 1
    assert not bench.known.is_absent("bb")
    assert bench.counted()["lookup_timeouts"] == 1


def test_a_refusal_is_counted(fake: FakeSidecar, bench: Bench) -> None:
    lookup = bench.lookups.start(["aa"], "model@1")
    fake.answer(fake.expect("lookup"), ok=False, error={"code": "MOUNT_SUSPENDED", "message": "hangs"})
    eventually(lambda: bench.lookups.settled(lookup))
    assert bench.counted()["refused|op=lookup"] == 1


def test_a_closed_client_knows_nothing(kv: Client, bench: Bench) -> None:
    kv.close()
    assert bench.lookups.settled(bench.lookups.start(["aa"], "model@1"))
    assert bench.counted()["refused|op=lookup"] == 1


def test_only_so_many_are_asked_at_once(fake: FakeSidecar, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups_module, "IN_FLIGHT_MAX", 1)
    bench.lookups.start(["aa"], "model@1")
    assert bench.lookups.is_full
    fake.answer(fake.expect("lookup"), present=[True], prefix=1, complete=True)
    eventually(lambda: not bench.lookups.is_full)
