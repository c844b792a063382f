"""What a user may write into kv_connector_extra_config, and what a mistake is answered with."""

from __future__ import annotations

import re

import pytest

from kvlane.vllm.config import ConnectorOptions, OptionError

MIB = 1 << 20


def refused(**given: object) -> str:
    with pytest.raises(OptionError) as caught:
        ConnectorOptions.parse(given, block_size=32)
    return str(caught.value)


def test_root_is_all_that_is_needed() -> None:
    options = ConnectorOptions.parse({"root": "/mnt/kv"})
    assert (options.root, options.create, options.load_mode, options.timeout_ms) == ("/mnt/kv", True, "auto", None)


@pytest.mark.parametrize("extra", [None, {}])
def test_without_a_root_the_sentence_shows_how_to_name_one(extra: dict[str, object] | None) -> None:
    with pytest.raises(OptionError, match=r"root is missing.*/mnt/kv"):
        ConnectorOptions.parse(extra)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"root": "kv"}, "root is 'kv'; it must be the absolute path"),
        ({"root": "/mnt/\0"}, "root is"),
        ({"root": 7}, "root is 7"),
        ({"timeout_ms": "250"}, "timeout_ms is '250'; it must be a number from 1 to 600000"),
        ({"timeout_ms": 0}, "timeout_ms is 0"),
        ({"timeout_ms": True}, "timeout_ms is True"),
        ({"timeout_ms": float("nan")}, "timeout_ms is nan"),
        ({"lanes": 2.5}, "lanes is 2.5; it must be a whole number"),
        ({"load": "false"}, "load is 'false'; it must be true or false, without quotes"),
        ({"load_mode": "sync"}, "load_mode is 'sync'; it must be one of 'auto', 'staged', 'async'"),
        ({"huge_pages": True}, "huge_pages is True; it must be one of 'auto', 'require', 'hugetlb', 'thp', 'off'"),
        ({"engine": "uring"}, "engine is 'uring'"),
        ({"namespace": "a/b"}, "namespace is 'a/b'"),
        ({"namespace": "n" * 41}, "at most 40"),
        ({"weights_version": 3}, "weights_version is 3; it must be a text in quotes"),
        ({"deadline_floor_ms": 100, "deadline_ceiling_ms": 50}, "deadline_floor_ms (100) is above"),
        ({"chunk_tokens": 100}, "no multiple of the KV block size of 32 tokens; 96 would be right"),
        ({"chunk_tokens": 7}, "32 would be right"),
        ({"time_out_ms": 5}, "no option 'time_out_ms' in kv_connector_extra_config; did you mean 'timeout_ms'?"),
        ({"zzz": 5}, "no option 'zzz' in kv_connector_extra_config; known are: root, create,"),
    ],
)
def test_a_mistake_names_the_option_and_what_would_be_right(given: dict[str, object], said: str) -> None:
    sentence = refused(**{"root": "/mnt/kv", **given})
    assert re.search(re.escape(said), sentence), sentence


def test_numbers_that_are_whole_may_be_written_with_a_point() -> None:
    assert ConnectorOptions.parse({"root": "/a", "lanes": 4.0}).lanes == 4


def test_none_stands_for_not_set_where_there_is_such_a_thing() -> None:
    options = ConnectorOptions.parse({"root": "/a", "timeout_ms": None, "engine": None, "node": None})
    assert (options.timeout_ms, options.engine, options.node) == (None, None, None)


@pytest.mark.parametrize(
    ("block_tokens", "block_bytes", "blocks"),
    [
        (16, MIB // 4, 4),  # as many as make a MiB
        (16, MIB // 3, 4),  # at least a MiB
        (16, 4 * MIB, 1),
        (16, 1024, 16),  # 256 tokens at most
        (512, 1024, 1),
        (16, 0, 16),  # of unknown or differing size
    ],
)
def test_a_chunk_has_a_mib_but_not_more_than_256_tokens(block_tokens: int, block_bytes: int, blocks: int) -> None:
    assert ConnectorOptions(root="/a").blocks_per_chunk(block_tokens, block_bytes) == blocks


def test_chunk_tokens_overrides_both() -> None:
    assert ConnectorOptions(root="/a", chunk_tokens=1024).blocks_per_chunk(16, MIB) == 64


def test_an_arena_that_does_not_hold_two_chunks_says_what_would() -> None:
    with pytest.raises(OptionError, match=r"arena_mib is 4, but one chunk takes 3.0 MiB.*set arena_mib to 6 or more"):
        ConnectorOptions(root="/a", arena_mib=4).slots(3 * MIB)
    assert ConnectorOptions(root="/a", arena_mib=6).slots(3 * MIB) == 2


def test_the_clients_options_carry_what_was_asked() -> None:
    asked = {"root": "/mnt/kv", "engine": "aio", "lanes": 3, "index_ms": 500, "stall_ms": 70, "node": "/n", "huge_pages": "thp"}
    options = ConnectorOptions.parse({**asked, "capacity_bytes": 1 << 30})
    worker = options.to_client_options("worker", 8, 5000)
    assert dict(worker.mounts) == {"kv": "/mnt/kv"}
    assert (worker.slots, worker.slot_bytes) == (8, 8192)
    assert (worker.engine, worker.lanes, worker.stall_ms, worker.node, worker.create) == ("aio", 3, 70, "/n", True)
    assert (worker.index_ms, worker.capacity_bytes, worker.capacity_share) == (500, 1 << 30, None)
    assert (worker.timeout_ms, worker.huge_pages) == (1500, "thp")
    scheduler = options.to_client_options("scheduler", 1, 4096)  # its arena holds next to nothing
    assert (scheduler.timeout_ms, scheduler.huge_pages) == (100, "off")
    assert scheduler.capacity_bytes is None  # the workers load and store: they know what is used


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"capacity_bytes": 1000}, "capacity_bytes is 1000"),
        ({"capacity_share": 96}, "capacity_share is 96"),
        ({"capacity_share": 50, "capacity_bytes": 1 << 30}, "one limit of the store is wanted"),
    ],
)
def test_a_capacity_that_cannot_be_right_is_refused(asked: dict[str, int], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        ConnectorOptions.parse({"root": "/a", **asked})
    assert ConnectorOptions.parse({"root": "/a", "capacity_share": 95}).capacity_share == 95
