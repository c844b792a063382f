"""Payloads that say whose they are: of this key, written by this writer as its n-th version. Any mixture of two is seen."""

from __future__ import annotations

import hashlib
import struct

HEAD = struct.Struct("<32sIIQ")  # sha256 of the key, writer, version, bytes


def payload(key: str, version: int, size: int, writer: int = 0) -> bytes:
    head = HEAD.pack(hashlib.sha256(key.encode()).digest(), writer, version, size)
    seed = hashlib.sha256(head).digest()
    made = bytearray(head)
    for page in range(size // 4096 + 1):  # each page another one, so that none can stand in for its neighbour
        made += hashlib.sha256(seed + struct.pack("<Q", page)).digest() * 128
    return bytes(made[:size])


def whose(key: str, data: bytes) -> tuple[int, int] | None:
    """(writer, version) if these bytes are a whole block of this key, else None."""
    if len(data) < HEAD.size:
        return None
    owner, writer, version, size = HEAD.unpack_from(data)
    if owner != hashlib.sha256(key.encode()).digest() or size != len(data):
        return None
    return (writer, version) if data == payload(key, version, size, writer) else None


def hexes(word: str, count: int) -> list[str]:
    return [hashlib.sha256(f"{word} {n}".encode()).hexdigest() for n in range(count)]
