"""JSON for the hot path: msgspec or orjson where the engine has one of them, the standard library otherwise.

A request of 1,024 blocks takes the standard library ten times as long as the other two. What goes over the wire means
the same with each, and what one of them will not take is left to the standard library, whose errors are the ones that
callers know. Nothing is ever installed for this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_plain_encode = json.JSONEncoder(separators=(",", ":")).encode


def _encode_plainly(message: Mapping[str, Any]) -> bytes:
    return _plain_encode(message).encode()


Codec = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]


def _msgspec() -> Codec:
    import msgspec.json

    return msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


def _orjson() -> Codec:
    import orjson

    return orjson.dumps, orjson.loads


def codecs() -> Iterator[tuple[str, Codec]]:
    """Those that this interpreter has, the fastest first; one that nobody gets to is not imported."""
    for name, make in (("msgspec", _msgspec), ("orjson", _orjson)):
        try:
            codec = make()
        except Exception:  # not there, or broken: neither is ours to complain about
            continue
        yield name, codec
    yield "json", (_encode_plainly, json.loads)


name, (_encode, _decode) = next(codecs())


def encode(message: Mapping[str, Any]) -> bytes:
    """Strings, numbers, lists and objects with string names; for anything a caller made up, see encode_any."""
    try:
        return _encode(message)
    except Exception:
        return _encode_plainly(message)


def encode_any(message: Mapping[str, Any]) -> bytes:
    """Always by the standard library: the others know types that JSON does not, and write something for them."""
    return _encode_plainly(message)


def decode(line: bytes) -> Any:
    """Raises ValueError or RecursionError, as json.loads."""
    try:
        return _decode(line)
    except Exception:
        return json.loads(line)
