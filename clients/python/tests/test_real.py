"""The real sidecar on a healthy directory: every byte that comes back is the byte that went in."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import eventually

from kvlane import AsyncClient, Client, Options, StartFailed

REPOSITORY = Path(__file__).resolve().parents[3]
BUILT = [REPOSITORY / "dist" / "kvlane.cjs", REPOSITORY / "native" / "build" / "Release" / "kvlane.node"]

pytestmark = pytest.mark.skipif(not all(path.is_file() for path in BUILT), reason="no sidecar is built: run `npm run build`")

SLOT_BYTES = 256 * 1024
AWKWARD = [1, 7, 511, 512, 513, 4095, 4096, 4097, 65_535, 65_537, SLOT_BYTES - 4097, SLOT_BYTES - 1, SLOT_BYTES]


def options(root: Path, **fields: Any) -> Options:
    # The mount is known at `ready`, however busy the disk: no first request is refused for that.
    known = ["--test-start-wait-ms", "5000"]
    defaults: dict[str, Any] = {
        "create": True, "slot_bytes": SLOT_BYTES, "slots": 32, "timeout_ms": 5000, "extra_arguments": known
    }  # fmt: skip
    return Options(mounts={"kv0": root}, **{**defaults, **fields})


@pytest.fixture(params=["threads", "aio"])
def kv(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    with Client(options(tmp_path, engine=request.param)) as client:
        yield client


def payload(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


def test_blocks_of_awkward_lengths_come_back_byte_for_byte(kv: Client) -> None:
    keys = [f"{i:04x}" for i in range(len(AWKWARD))]
    with kv.leasing(len(keys), use="store") as out:
        for i, slot in enumerate(out):
            slot.view[: AWKWARD[i]] = payload(i, AWKWARD[i])
        kv.wait(kv.store(keys, out, namespace="awkward", bytes=AWKWARD)).check()
    with kv.leasing(len(keys)) as back:
        for slot in back:
            slot.view[:] = b"\xee" * SLOT_BYTES
        result = kv.wait(kv.load(keys, back, namespace="awkward", bytes=AWKWARD))
        assert (result.failed, result.done) == ((), len(keys))
        for i, slot in enumerate(back):
            assert bytes(slot.view[: AWKWARD[i]]) == payload(i, AWKWARD[i]), f"{AWKWARD[i]} bytes"


def test_a_block_that_is_there_is_kept_unless_it_is_replaced(kv: Client) -> None:
    with kv.leasing(1, use="store") as out, kv.leasing(1) as back:
        for text, replace, kept, then in ((b"one", False, 0, b"one"), (b"two", False, 1, b"one"), (b"two", True, 0, b"two")):
            out[0].view[:3] = text
            assert kv.wait(kv.store(["a/00ff"], out, bytes=3, replace=replace)).kept == kept
            assert kv.wait(kv.load(["a/00ff"], back, bytes=3)).ok
            assert bytes(back[0].view[:3]) == then


def test_what_is_not_there_is_a_miss_that_names_its_blocks(kv: Client) -> None:
    with kv.leasing(2, use="store") as out, kv.leasing(4) as back:
        kv.wait(kv.store(["00", "02"], out, namespace="a", bytes=100)).check()
        result = kv.wait(kv.load(["00", "01", "02", "03"], back, namespace="a", bytes=[100, 100, 99, 100]))
        assert [(f.block, f.code, f.slot) for f in result.failed] == [
            (1, "NOT_FOUND", "free"),
            (2, "LENGTH_MISMATCH", "free"),
            (3, "NOT_FOUND", "free"),
        ]
        assert result.failed[1].stored_bytes == 100
    look = kv.wait(kv.lookup(["00", "01", "02"], namespace="a"))
    assert (look.present, look.prefix, look.complete) == ((True, False, True), 1, True)


def test_removed_blocks_are_gone(kv: Client) -> None:
    with kv.leasing(2, use="store") as out:
        kv.wait(kv.store(["a/00", "a/01"], out, bytes=10)).check()
    assert kv.wait(kv.remove(["a/00"])).done == 1
    assert kv.wait(kv.lookup(["a/01", "a/00"])).present == (True, False)


def test_a_namespace_lives_through_its_generations(kv: Client) -> None:
    first = kv.wait(kv.namespace("llama", {"dtype": "fp16", "layers": 32}))
    assert (first.state, first.ok) == ("created", True)
    assert kv.wait(kv.namespace("llama", {"layers": 32, "dtype": "fp16"})).state == "matches"
    other = kv.wait(kv.namespace("llama", {"dtype": "fp8"}))
    assert (other.state, other.fingerprint) == ("differs", {"dtype": "fp16", "layers": 32})
    bumped = kv.wait(kv.namespace("llama", {"dtype": "fp8"}, bump=True))
    assert bumped.generation == first.generation + 1
    with kv.leasing(1, use="store") as out:
        kv.wait(kv.store(["00"], out, namespace=first.key_namespace, bytes=5)).check()
    assert kv.wait(kv.lookup(["00"], namespace=bumped.key_namespace)).present == (False,)


def test_a_loop_of_many_blocks_with_every_byte_verified(kv: Client) -> None:
    """A small gigabyte: KVLANE_TEST_MIB=1024 makes it a real one."""
    total = int(os.environ.get("KVLANE_TEST_MIB", "32")) * (1 << 20)
    batch = 8
    sums: dict[str, bytes] = {}
    began = time.monotonic()
    for first in range(0, total // SLOT_BYTES, batch):
        keys = [f"{i:08x}" for i in range(first, first + batch)]
        with kv.leasing(batch, use="store") as out:
            for key, slot in zip(keys, out, strict=True):
                data = payload(int(key, 16), SLOT_BYTES)
                sums[key] = hashlib.blake2b(data).digest()
                slot.view[:] = data
            kv.wait(kv.store(keys, out, namespace="many")).check()
    stored = time.monotonic()
    order = list(sums)
    random.Random(1).shuffle(order)
    for first in range(0, len(order), batch):
        keys = order[first : first + batch]
        with kv.leasing(len(keys)) as back:
            kv.wait(kv.load(keys, back, namespace="many")).check()
            for key, slot in zip(keys, back, strict=True):
                assert hashlib.blake2b(slot.view).digest() == sums[key], key
    print(f"{total >> 20} MiB stored in {stored - began:.2f} s, loaded and verified in {time.monotonic() - stored:.2f} s")


def test_many_threads_share_a_client(kv: Client) -> None:
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(10):
            key, data = f"{number:02x}{turn:02x}", payload(number * 100 + turn, 5000)
            with kv.leasing(1, use="store") as out:
                out[0].view[:5000] = data
                result = kv.wait(kv.store([key], out, namespace="threads", bytes=5000))
            with kv.leasing(1) as back:
                loaded = kv.wait(kv.load([key], back, namespace="threads", bytes=5000))
                if not (result.ok and loaded.ok and back[0].view[:5000] == data):
                    wrong.append(f"{key}: {result} {loaded}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert kv.client_stats()["slots_free"] == 32


def test_the_sidecar_answers_questions_about_itself(kv: Client) -> None:
    assert kv.ping() < 1000
    assert kv.stuck() == []
    assert "mounts" in kv.stats()


def test_blocks_outlive_the_sidecar(tmp_path: Path) -> None:
    with Client(options(tmp_path, backoff_first_ms=10)) as kv:
        with kv.leasing(1, use="store") as out:
            out[0].view[:5] = b"hello"
            kv.wait(kv.store(["a/00"], out, bytes=5)).check()
        assert kv.pid is not None
        os.kill(kv.pid, signal.SIGKILL)
        eventually(lambda: kv.life == 2 and kv.state == "up")
        with kv.leasing(1) as back:
            kv.wait(kv.load(["a/00"], back, bytes=5)).check()
            assert bytes(back[0].view[:5]) == b"hello"


def test_with_kvlane_record_in_the_environment_a_conversation_is_kept_and_can_be_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "bug.ndjson"
    monkeypatch.setenv("KVLANE_RECORD", str(record))
    chosen = options(tmp_path / "store")
    (tmp_path / "store").mkdir()
    with Client(chosen) as kv:
        with kv.leasing(2, use="store") as out:
            for i, slot in enumerate(out):
                slot.view[:4096] = payload(i, 4096)
            kv.wait(kv.store(["00", "01"], out, namespace="demo", bytes=4096)).check()
        with kv.leasing(2) as back:
            kv.wait(kv.load(["00", "01"], back, namespace="demo", bytes=4096)).check()
            assert [bytes(slot.view[:4096]) for slot in back] == [payload(0, 4096), payload(1, 4096)]
        with kv.leasing(1) as missed:
            assert not kv.wait(kv.load(["02"], missed, namespace="demo", bytes=4096)).ok
    replay = [chosen._node(), str(chosen._main_js()), "replay", str(record), "--fast"]
    said = subprocess.run(replay, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "answers as recorded" in said.stdout


def test_a_stopped_sidecar_does_not_start_what_was_settled_long_ago(tmp_path: Path) -> None:
    with Client(options(tmp_path, mute_ms=60_000)) as kv:
        assert kv.pid is not None
        with kv.leasing(1, use="store") as out, kv.leasing(1, use="store") as probe:
            os.kill(kv.pid, signal.SIGSTOP)
            try:
                result = kv.wait(kv.store(["a/00"], out, bytes=5, timeout_ms=50))
                assert (result.code, result.source, out[0].state) == ("DEADLINE_EXCEEDED", "client", "quarantined")
            finally:
                os.kill(kv.pid, signal.SIGCONT)
            eventually(lambda: out[0].state == "free")
            assert kv.wait(kv.lookup(["a/00"])).present == (False,)
            kv.wait(kv.store(["a/01"], probe, bytes=5)).check()


def test_asyncio_over_the_real_sidecar(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncClient(options(tmp_path)) as kv:
            with kv.leasing(8, use="store") as out, kv.leasing(8) as back:
                for i, slot in enumerate(out):
                    slot.view[:] = payload(i, SLOT_BYTES)
                stores = (kv.store([f"a/{i:02x}"], [out[i]]) for i in range(8))
                assert all(result.ok for result in await asyncio.gather(*stores))
                loads = (kv.load([f"a/{i:02x}"], [back[i]]) for i in range(8))
                assert all(result.ok for result in await asyncio.gather(*loads))
                assert all(back[i].view == payload(i, SLOT_BYTES) for i in range(8))

    asyncio.run(scenario())


def test_an_option_the_sidecar_does_not_take_is_reported_in_its_own_words(tmp_path: Path) -> None:
    with (
        pytest.raises(StartFailed, match="exited with status 2") as caught,
        Client(options(tmp_path, extra_arguments=["--no-such-option"])),
    ):
        pass
    assert any("no-such-option" in line for line in caught.value.log_tail)


def test_a_mount_that_is_no_store_refuses_and_nothing_is_written(tmp_path: Path) -> None:
    with Client(options(tmp_path, create=False)) as kv, kv.leasing(1, use="store") as out:
        result = kv.wait(kv.store(["a/00"], out, bytes=5))
        assert result.code in ("WRONG_STORE", "MOUNT_SUSPENDED")
    assert list(tmp_path.iterdir()) == []
