"""A "model" whose KV cache can be read: what stands in a block is a function of the whole prefix up to each token, of the
layer and of the rank, and so is the next token. Before it computes anything for a request it checks every position that
is claimed as computed, whoever says so. A wrong, torn or missing load is therefore found in the very next step.

It keeps requests and block tables as vLLM's model runner (V1) does: from the scheduler's outputs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

HEADS, CONTENT = 2, 64
"""Of one token in one layer: KV heads, and elements of K and V of one head."""
VOCABULARY = 500
_MODULUS = (1 << 31) - 1


class WrongKV(AssertionError):
    """A block does not hold what the tokens before it make."""


def chain(tokens: Sequence[int]) -> np.ndarray:
    """A number for every position, which depends on all tokens up to it."""
    values, last = np.empty(len(tokens), dtype=np.int64), 7
    for position, token in enumerate(tokens):
        last = (last * 1_000_003 + token + 1) % _MODULUS
        values[position] = last
    return values


def next_token(tokens: Sequence[int]) -> int:
    return int(chain(tokens)[-1]) % VOCABULARY + 3


def expected(prompt: Sequence[int], count: int) -> list[int]:
    """What any correct run must answer."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


def contents(chained: np.ndarray, layer: int, rank: int) -> torch.Tensor:
    """[positions, heads * content]; whole numbers that float32 holds exactly."""
    element = np.arange(HEADS * CONTENT, dtype=np.int64)
    values = (chained[:, None] * 31 + layer * 7919 + rank * 104_729 + element[None, :] * 7) % (1 << 23)
    return torch.from_numpy(values.astype(np.float32))


@dataclass
class Known:
    """What a rank knows of a running request."""

    tokens: list[int]
    blocks: list[int]
    computed: int


class RankModel:
    """One worker's memory and computation."""

    def __init__(self, rank: int, layers: int, blocks: int, block_size: int) -> None:
        self.rank, self.block_size = rank, block_size
        shape = (blocks, HEADS, block_size, CONTENT)
        self.kv = {f"model.layers.{layer}.self_attn.attn": torch.full(shape, -1.0) for layer in range(layers)}
        self.requests: dict[str, Known] = {}
        self.checked_tokens = 0

    def update(self, scheduled: Any) -> None:
        """Finished first: an id may come back in the same step."""
        for request in scheduled.finished_req_ids:
            self.requests.pop(request, None)
        for new in scheduled.scheduled_new_reqs:
            self.requests[new.req_id] = Known(list(new.prompt_token_ids), list(new.block_ids[0]), new.num_computed_tokens)
        cached = scheduled.scheduled_cached_reqs
        for index, request in enumerate(cached.req_ids):
            known, blocks = self.requests[request], cached.new_block_ids[index]
            known.computed = cached.num_computed_tokens[index]
            if request in cached.resumed_req_ids:
                known.blocks = list(blocks[0])
                known.tokens = list(cached.all_token_ids.get(request, known.tokens))
            elif blocks is not None:
                known.blocks += blocks[0]

    def forward(self, scheduled: Any) -> dict[str, list[int]]:
        """Checks, computes, and samples where a prompt is complete."""
        sampled: dict[str, list[int]] = {}
        for request, count in scheduled.num_scheduled_tokens.items():
            known = self.requests[request]
            end = known.computed + count
            assert end <= len(known.tokens), f"{request}: {end} tokens scheduled, but only {len(known.tokens)} are known"
            chained = chain(known.tokens[:end])
            self._check(request, known, chained[: known.computed])
            self._compute(known, chained)
            sampled[request] = [next_token(known.tokens)] if end == len(known.tokens) else []
            known.tokens += sampled[request]
        return sampled

    def _check(self, request: str, known: Known, chained: np.ndarray) -> None:
        claimed, size = len(chained), self.block_size
        blocks = known.blocks[: -(-claimed // size)]
        assert len(blocks) * size >= claimed, (
            f"{request}: {claimed} tokens are claimed, but only {len(blocks)} blocks are held"
        )
        self.checked_tokens += claimed
        for layer, tensor in enumerate(self.kv.values()):
            held = self.read(tensor, blocks)[:claimed]
            wrong = (held != contents(chained, layer, self.rank)).any(dim=1).nonzero()
            if len(wrong):
                at = int(wrong[0])
                raise WrongKV(
                    f"{request}, rank {self.rank}, layer {layer}: {len(wrong)} of {claimed} tokens claimed as computed are wrong, "
                    f"the first at {at}, block {blocks[at // size]} (number {at // size} of the request)"
                )

    def _compute(self, known: Known, chained: np.ndarray) -> None:
        size = self.block_size
        for layer, tensor in enumerate(self.kv.values()):
            values = contents(chained[known.computed :], layer, self.rank)
            for offset, position in enumerate(range(known.computed, len(chained))):
                tensor[known.blocks[position // size], :, position % size, :] = values[offset].view(HEADS, CONTENT)

    @staticmethod
    def read(tensor: torch.Tensor, blocks: Sequence[int]) -> torch.Tensor:
        """[positions, heads * content] of these blocks, one after the other."""
        return tensor[list(blocks)].permute(0, 2, 1, 3).reshape(-1, HEADS * CONTENT)

    def check_block(self, block: int, tokens: Sequence[int]) -> None:
        """One block that the prefix cache offers: the last block of `tokens`."""
        chained = chain(tokens)[-self.block_size :]
        for layer, tensor in enumerate(self.kv.values()):
            if not torch.equal(self.read(tensor, [block]), contents(chained, layer, self.rank)):
                raise WrongKV(f"block {block}, rank {self.rank}, layer {layer}: cached for {len(tokens)} tokens, but wrong")
