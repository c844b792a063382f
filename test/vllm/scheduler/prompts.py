"""Prompts that differ, or share a prefix, on purpose."""

from __future__ import annotations


def prompt(seed: int, tokens: int) -> list[int]:
    return [(seed * 131 + position * 7 + position * position % 11) % 480 + 3 for position in range(tokens)]


def sharing(seed: int, shared: int, tail: int, which: int) -> list[int]:
    """The first `shared` tokens are the same for every `which`."""
    return prompt(seed, shared) + prompt(1000 + seed * 37 + which, tail)
