"""Whichever JSON library serves, the wire carries the same, and what callers are told is the same."""

from __future__ import annotations

import decimal
import enum
import fractions
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from kvlane import Client, InvalidArgument, Options, _json

CODECS = ("msgspec", "orjson", "json")


class Kind(enum.Enum):
    DEMO = "demo"


class Word(str):
    """What numpy and some tokenizers have instead of str."""


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    found = dict(_json.codecs())
    if request.param not in found:
        pytest.skip(f"{request.param} is not installed")
    encode, decode = found[request.param]
    monkeypatch.setattr(_json, "_encode", encode)
    monkeypatch.setattr(_json, "_decode", decode)
    yield request.param


def test_the_standard_library_is_always_there_and_comes_last() -> None:
    names = [name for name, _codec in _json.codecs()]
    assert names[-1] == "json"
    assert _json.name == names[0]


def test_a_library_is_not_imported_where_a_faster_one_serves() -> None:
    if _json.name != "msgspec":
        pytest.skip("msgspec is not installed")
    look = "import sys, kvlane; print(kvlane._json.name, 'orjson' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60)
    assert said.stdout.split() == ["msgspec", "False"], said
    broken = "import sys; sys.modules['msgspec'] = None; " + look
    said = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, timeout=60)
    assert said.stdout.split()[0] in ("orjson", "json"), said


@pytest.mark.parametrize(
    "message",
    [
        {"op": "load", "mount": "kv0", "deadline_us": 2**53 - 1, "keys": ["00ff", "0100"], "slots": [0, 127], "bytes": 4096},
        {"op": "lookup", "keys": ['a"b\\c', "caf\u00e9", "\u2028", "\x00\x1f"]},
        {"op": "store", "bytes": [1, 4096], "if_exists": "replace"},
        {"op": "ping"},
    ],
)
def test_a_request_reads_back_as_it_was(codec: str, message: dict[str, Any]) -> None:
    line = _json.encode(message)
    assert json.loads(line) == message
    assert b"\n" not in line and line.startswith(b"{") and b" " not in line.replace(b"caf", b"")


def test_what_no_library_can_write_is_refused_in_the_same_words(codec: str) -> None:
    with pytest.raises(TypeError, match="is not JSON serializable"):
        _json.encode({"op": "lookup", "keys": [object()]})


def test_half_a_character_goes_over_as_an_escape(codec: str) -> None:
    assert json.loads(_json.encode({"keys": ["\ud800"]})) == {"keys": ["\ud800"]}


def test_a_fingerprint_is_never_written_by_a_library_that_knows_more_types_than_json() -> None:
    with pytest.raises(TypeError):
        _json.encode_any({"fingerprint": {"weights": b"raw"}})
    assert json.loads(_json.encode_any({"fingerprint": {1: "one"}})) == {"fingerprint": {"1": "one"}}


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":1,"present":[true,null,false]}',
        b'{"a":"\\ud800"}',
        b'{"\\ud800":1}',
        b'{"a":1e3,"b":-0.5,"c":1e400,"d":-0,"e":5e-324}',
        b'{"a":1,"b":2,"a":3}',
        b'{"a":9007199254740993,"b":18446744073709551615,"c":-9223372036854775808}',
        b'{"a":100000000000000000000}',
        b'{"a":NaN}'.replace(b"NaN", b"-Infinity"),
        b"\xef\xbb\xbf{}",
        b' {"a" : [ ] }\t\r',
        '{"a":"\u00e9\U0001f600\u2028"}'.encode(),
        b"[]",
        b"7",
    ],
)
def test_an_answer_is_read_as_the_standard_library_reads_it(codec: str, line: bytes) -> None:
    assert _json.decode(line) == json.loads(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"{}{}",
        b"{'a':1}",
        b'{"a":1,}',
        b"\xff",
        b"nothing",
        b'{"a":"\xff"}',
        b'{"a":01}',
        b'{"a":"\x01"}',
        b"{}\x00",
    ],
)
def test_a_line_that_is_not_json_is_a_value_error(codec: str, line: bytes) -> None:
    with pytest.raises(ValueError):
        _json.decode(line)


def test_blocks_go_there_and_back(codec: str, tmp_path: Any) -> None:
    with Client(Options(mounts={"kv0": tmp_path}, create=True, slots=16, slot_bytes=4096, timeout_ms=10_000)) as kv:
        keys = [f"{i:04x}" for i in range(8)]
        with kv.leasing(8, use="store") as slots:
            assert kv.wait(kv.store(keys, slots, namespace="demo")).done == 8
        assert kv.wait(kv.lookup([*keys, "ffff"], namespace="demo")).present == (True,) * 8 + (False,)
        with kv.leasing(8) as slots:
            assert kv.wait(kv.load(keys, slots, namespace="demo")).ok
        with pytest.raises(InvalidArgument, match="keys must be strings"):
            kv.lookup([b"00ff"])  # type: ignore[list-item]
        for namespace in (b"dem", uuid.UUID(int=5), 7, Kind.DEMO):
            with pytest.raises(InvalidArgument, match="namespace must be a string"):
                kv.lookup(keys, namespace=namespace)  # type: ignore[arg-type]
        with kv.leasing(2) as slots:
            for length in (decimal.Decimal(4096), 4096.0, "4096", fractions.Fraction(8192, 2)):
                with pytest.raises(InvalidArgument, match="bytes must be whole numbers"):
                    kv.load(keys[:2], slots, namespace="demo", bytes=[4096, length])  # type: ignore[list-item]
            assert kv.wait(kv.load(keys[:2], slots, namespace=Word("demo"), bytes=[4096, 4096])).ok
        assert kv.wait(kv.namespace("demo", {"model": "caf\u00e9", "layers": [1, 2.5, None]})).state == "created"
