"""JSON for the hot path: msgspec or orjson where the engine has one of them, the standard library otherwise.

A request of 1,024 blocks takes the standard library ten times as long as the other two. What goes over the wire means
the same with each, and what one of them will not take is left to the standard library, whose errors are the ones that
callers know. Nothing is ever installed for this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

_plain_encode = json.JSONEncoder(separators=(",", ":")).encode


def _encode_plainly(message: Mapping[str, Any]) -> bytes:
    return _plain_encode(message).encode()


def codecs() -> dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]]:
    """Those that this interpreter has, the fastest first."""
    found: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {}
    try:
        import msgspec.json

        found["msgspec"] = (msgspec.json.Encoder().encode, msgspec.json.Decoder().decode)
    except Exception:  # not there, or broken: neither is ours to complain about
        pass
    try:
        import orjson

        found["orjson"] = (orjson.dumps, orjson.loads)
    except Exception:
        pass
    found["json"] = (_encode_plainly, json.loads)
    return found


name, (_encode, _decode) = next(iter(codecs().items()))


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
