"""Framing at its limits."""

from __future__ import annotations

import os

import pytest

from kvlane._lines import LineSplitter, LineTooLong, Outbox
from kvlane._notes import NOTE_CHARS_MAX, Notes, StderrRing


def test_lines_come_out_whole_however_the_bytes_came_in() -> None:
    splitter = LineSplitter(100)
    text = b"one\ntwo\n\nthree\n"
    byte_by_byte = [line for i in range(len(text)) for line in splitter.feed(text[i : i + 1])]
    assert byte_by_byte == list(LineSplitter(100).feed(text)) == [b"one", b"two", b"", b"three"]


def test_a_line_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert list(LineSplitter(8).feed(b"x" * 8 + b"\n")) == [b"x" * 8]
    with pytest.raises(LineTooLong):
        list(LineSplitter(8).feed(b"x" * 9 + b"\n"))


def test_bytes_without_an_end_are_not_gathered_past_the_limit() -> None:
    splitter = LineSplitter(8)
    assert list(splitter.feed(b"x" * 8)) == []
    with pytest.raises(LineTooLong):
        list(splitter.feed(b"x"))


def test_an_outbox_takes_whole_lines_up_to_its_limit_and_sends_them_in_order() -> None:
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    box = Outbox(bytes_max=10)
    assert box.push(b"12345")
    assert box.push(b"67890")
    assert not box.push(b"x")
    box.flush(write_end)
    assert (os.read(read_end, 100), len(box)) == (b"1234567890", 0)
    os.close(read_end)
    box.push(b"x")
    with pytest.raises(BrokenPipeError):
        box.flush(write_end)
    os.close(write_end)


def test_a_full_pipe_keeps_the_rest_for_later() -> None:
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    box = Outbox(bytes_max=1 << 20)
    payload = os.urandom(300_000)
    assert box.push(payload)
    got = b""
    while box:
        box.flush(write_end)
        got += os.read(read_end, 1 << 20)
    assert got == payload
    os.close(read_end)
    os.close(write_end)


def test_notes_are_bounded_and_count_what_fell_out() -> None:
    notes = Notes(lines_max=3)
    for number in range(5):
        notes.add(str(number))
    assert (notes.tail(), notes.dropped) == (("2", "3", "4"), 2)
    notes.add("x" * 10_000)
    assert len(notes.tail()[-1]) < NOTE_CHARS_MAX + 5


def test_stderr_without_an_end_is_cut_not_gathered() -> None:
    notes = Notes()
    ring = StderrRing(notes)
    ring.feed(b"first\nsec")
    ring.feed(b"ond\n\xff")
    ring.end()
    assert notes.tail() == ("first", "second", "\ufffd")
    for _ in range(100):
        ring.feed(b"y" * 1000)
    assert len(ring._rest) <= NOTE_CHARS_MAX
