"""Two ranks: a hit needs both, and rank 0's file is the proof, so it comes last."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from harness import Engine
from inspect_connector import only_client, worker_half
from prompts import prompt
from stories import CHUNK, both_modes, claims, compute, exact, make, of_rank, pairs, ready, warm


@both_modes
def test_what_both_ranks_have_stored_is_a_hit_for_both(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, world=2)) as engine:
        warm(engine, prompt(1, 200))
        assert len(of_rank(root, 0)) == len(of_rank(root, 1)) == 6
        compute(engine, "hit", prompt(1, 200))
        claims(engine, "hit", 192)


@pairs
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_rank_lacks_a_chunk_only_what_is_before_it_is_used(
    root: str, scheduling: str, mode: str, rank: int
) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, world=2)) as engine:
        warm(engine, prompt(1, 200))
        digest = bytes(next(iter(engine.requests.values())).block_hashes[5]).hex()
        (file,) = [each for each in of_rank(root, rank) if each.stem.startswith(digest)]
        file.unlink()
        compute(engine, "part", prompt(1, 200))
        if mode == "staged":
            claims(engine, "part", 2 * CHUNK)


def test_rank_0_writes_a_chunk_only_when_rank_1_has_it(root: str, scheduling: str) -> None:
    """Looked at between any two steps: no name of rank 0 without its twin."""
    with Engine(make(root, scheduling=scheduling, world=2)) as engine:
        ready(engine)
        engine.add("a", prompt(1, 300), 20)

        def all_there() -> bool:
            first = {file.stem[:-4] for file in of_rank(root, 0)}
            second = {file.stem[:-4] for file in of_rank(root, 1)}
            assert first <= second, "rank 0 wrote before rank 1"
            return len(first) == 9

        engine.run_until(all_there)
        engine.finish("a")


def test_where_rank_1_cannot_store_rank_0_does_not_either_and_lets_go(root: str, scheduling: str) -> None:
    with Engine(make(root, scheduling=scheduling, world=2, store_timeout_ms=500)) as engine:
        ready(engine)
        drop_stores(engine, 1)
        compute(engine, "a", prompt(1, 200))
        for number in range(30):
            compute(engine, f"more{number}", prompt(10 + number, 20))
        assert of_rank(root, 0) == [] and of_rank(root, 1) == []
        engine.forget_local()
        compute(engine, "miss", prompt(1, 200))
        claims(engine, "miss", 0)


@pairs
def test_one_ranks_sidecar_killed_ends_in_the_same_answer_for_both(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, world=2)) as engine:
        warm(engine, prompt(1, 200))
        client = only_client(engine.workers[1].connector)
        for steps in (1, 3, 5):
            engine.run_until(lambda: client.state == "up", what="a sidecar")
            engine.add("hit", prompt(1, 200))
            for _ in range(steps):
                engine.step()
            os.kill(client.pid, signal.SIGKILL)
            engine.finish("hit")
            exact(engine, "hit")
            engine.run_until(lambda: client.state != "up", what="its death noticed")
            engine.forget_local()


@pairs
def test_one_rank_whose_files_are_all_damaged_makes_no_wrong_answer(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, world=2)) as engine:
        warm(engine, prompt(1, 200))
        for file in of_rank(root, 1):
            data = bytearray(file.read_bytes())
            data[9000] ^= 1
            file.write_bytes(data)
        for name in "abc":
            engine.add(name, prompt(1, 200))
        engine.finish("a", "b", "c")
        exact(engine)
        for name in "abc":
            assert len([answer for answer in engine.answers[name] if answer[0]]) <= 1


@both_modes
def test_ranks_swapped_on_disk_are_refused(root: str, mode: str) -> None:
    """A file of rank 1 under rank 0's name carries the wrong key: a miss, whatever its bytes."""
    with Engine(make(root, load_mode=mode, world=2)) as engine:
        warm(engine, prompt(1, 200))
        for file in of_rank(root, 0):
            twin = Path(str(file).replace(file.stem, file.stem[:-4] + "0001"))
            shutil.copyfile(twin if twin.exists() else of_rank(root, 1)[0], file)
        compute(engine, "refused", prompt(1, 200))


def test_another_number_of_ranks_never_meets_these_blocks(root: str) -> None:
    with Engine(make(root, world=2)) as engine:
        warm(engine, prompt(1, 100))
    with Engine(make(root)) as engine:
        ready(engine)
        compute(engine, "stranger", prompt(1, 100))
        claims(engine, "stranger", 0)


@pairs
def test_aborts_at_any_step_are_reported_once_by_both(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, world=2)) as engine:
        warm(engine, prompt(1, 200))
        for steps in range(10):
            engine.add("short", prompt(1, 200), 6)
            for _ in range(steps):
                engine.step()
            if "short" not in engine.reason:
                engine.abort("short")
            engine.forget_local()


def drop_stores(engine: Engine, rank: int) -> None:
    """This rank's slots for stores are all in use."""
    link = worker_half(engine.workers[rank].connector).link
    lease = link.lease
    link.lease = lambda count, use: None if use == "store" else lease(count, use)
