"""Loads: file → slot, told to the scheduler, then slot → KV blocks when a copy is ordered.

    LoadOrder → reading → staged (reported once) → CopyOrder → copying → finished_recving, once
                        → or the CopyOrder came along (load mode async): each piece is copied as it lands

Surprising: a load is cut into pieces, and only what lies before the first failed chunk counts. A load that was ordered to
be copied is finished exactly once whatever happens, also one that nobody here has ever heard of: the request waits for it
without any limit of its own. It is never finished while a copy into its blocks may still be running.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..results import BlocksResult
from .link import Link
from .messages import CopyOrder, LoadOrder, Orders
from .outcomes import Outcomes
from .pieces import Load, Piece
from .stats import Tally
from .transfers import ChunkBlocks, Copier, bad_blocks

PIECE_CHUNKS_MAX = 32
"""Chunks in one request to the sidecar: few lines for long prefixes, and copying begins before all has landed."""
LOADS_MAX = 1024
"""Loads at a time; more are answered SATURATED. Each holds slots, of which there are fewer."""
COPIED_MAX = 4096
"""Loads that were ordered to be copied and are remembered, so that the same order twice is finished once."""

KeyName = Callable[[str], str]


class Staging:
    def __init__(
        self, link: Link, copier: Copier, tally: Tally, *, rank: int, window: int, failures: str, now: Callable[[], float],
        key_name: KeyName,
    ) -> None:  # fmt: skip
        """`window`: slots that loads may always have. `failures`: features.failure_backend. `key_name`: hash → key hex."""
        self._link, self._copier, self._tally = link, copier, tally
        self._failures, self._now, self._key_name = failures, now, key_name
        self._window = max(1, min(PIECE_CHUNKS_MAX, window))
        self._loads: dict[int, Load] = {}
        self._ordered: OrderedDict[int, str] = OrderedDict()
        self.outcomes = Outcomes(
            tally, rank=rank, failures=failures, chunk_bytes=copier.chunk_bytes, now=now,
            blocks_per_chunk=copier.blocks_per_chunk,
        )  # fmt: skip

    # --- orders ----------------------------------------------------------------------------------------------------

    def begin(self, orders: Orders) -> None:
        copies = {order.load for order in orders.copies}
        for order in orders.loads:
            if order.load not in self._loads and order.load not in self._ordered:
                self._begin_load(order, orders.namespace, order.load in copies)
        for copy in orders.copies:
            try:
                self._begin_copy(copy)
            except Exception:  # the orders behind it must not be lost with it
                self._give_up(copy)
        for number in orders.drops:
            dropped = self._loads.get(number)
            if dropped is not None and dropped.copy is None:
                self._forget(dropped)

    def _begin_load(self, order: LoadOrder, namespace: str | None, at_once: bool) -> None:
        now = self._now()
        load = Load(order, namespace or "", now, now + max(0.0, order.timeout_ms) / 1000, limit=len(order.keys))
        refused = self._refusal(order, namespace)
        if refused is None:
            size = self._window if at_once else PIECE_CHUNKS_MAX
            for first in range(0, len(order.keys), size):
                load.pieces.append(Piece(load, first, order.keys[first : first + size]))
            may_wait = at_once or self._link.is_probing("load")
            slots = None if may_wait else self._link.lease(len(order.keys), "load")
            if slots is not None:
                for piece in load.pieces:
                    piece.slots = slots[piece.first : piece.first + len(piece.keys)]
                    self._read(piece)
            elif not may_wait:
                refused = self._link.refusal("load") or "SATURATED"
        self._loads[order.load] = load
        if refused is not None:
            load.pieces.clear()
            load.cut(0, refused, "")
        if not at_once:  # else its CopyOrder is the next thing
            self._safely_move(load)

    def _refusal(self, order: LoadOrder, namespace: str | None) -> str | None:
        if not order.keys or not order.timeout_ms > 0:
            return "INVALID_REQUEST"
        if namespace is None or len(self._loads) >= LOADS_MAX:
            return "SATURATED"
        if self._failures == "none":  # a copy that fails could not be told: better not to begin
            return "INVALID_REQUEST"
        refused = self._link.refusal("load")
        if refused is None and not self._copier.ready(self._link.life):
            return "SIDECAR_GONE"
        return refused

    def _begin_copy(self, copy: CopyOrder) -> None:
        if self._ordered.get(copy.load) == copy.request:
            return  # the same order again: it is finished once
        load = self._loads.get(copy.load)
        if load is None or load.copy is not None:
            load = Load(LoadOrder(copy.load, copy.request, (), 0), "", self._now(), 0)
            load.code = "UNKNOWN_LOAD"
        self._ordered[copy.load] = copy.request
        while len(self._ordered) > COPIED_MAX:
            self._ordered.popitem(last=False)
        load.copy = copy
        per_chunk = self._copier.blocks_per_chunk
        wanted = copy.chunks * per_chunk - copy.skip_blocks
        if copy.chunks < 1 or not 0 <= copy.skip_blocks < per_chunk or bad_blocks(self._copier, copy.blocks, wanted):
            load.bad_order = True
            load.cut(0, "INVALID_REQUEST", "")
        else:
            groups = [(0,) * copy.skip_blocks + tuple(ids) for ids in copy.blocks]
            for at in range(0, copy.chunks * per_chunk, per_chunk):
                load.blocks.append(tuple(ids[at : at + per_chunk] for ids in groups))
        if load.staged_at is not None:
            self._tally.observe("staging_wait", self._now() - load.staged_at)
        for piece in load.pieces:
            if piece.first >= copy.chunks:
                self._let_go(piece)
        self._safely_move(load)

    def _give_up(self, copy: CopyOrder) -> None:
        self._tally.count("hook_errors", hook="load")
        load = self._loads.get(copy.load) or Load(LoadOrder(copy.load, copy.request, (), 0), "", 0.0, 0.0)
        load.copy, load.bad_order, load.blocks = copy, True, []
        load.cut(0, "INTERNAL_ERROR", "")
        self._safely_move(load)

    def cancel(self, requests: Iterable[str]) -> None:
        """Their blocks are others' now: no copy is begun any more. Ends like a load of nothing; neither hit nor failure."""
        for load in [each for each in self._loads.values() if each.copy is not None and each.copy.request in requests]:
            assert load.copy is not None
            load.copy, load.limit, load.staged_at = replace(load.copy, chunks=0), 0, load.staged_at or self._now()
            self._safely_move(load)

    # --- moving on -------------------------------------------------------------------------------------------------

    def settled(self, piece: Piece, result: BlocksResult) -> None:
        """The sidecar's answer to a piece, or the client's own word. Once per request."""
        load = piece.load
        piece.task = None
        if load.order.load not in self._loads:
            piece.release()
            return
        first = min(result.failed, key=lambda failure: failure.block, default=None)
        self._tally.count("corrupt", sum(failure.code == "CORRUPT" for failure in result.failed))
        if first is not None:
            piece.landed = first.block
            load.cut(piece.first + first.block, first.code, first.phase or "")
        elif result.ok:
            piece.landed = len(piece.keys)
        else:
            piece.landed = 0
            load.cut(piece.first, result.code or "IO_ERROR", "")
        piece.release(piece.landed)
        self._safely_move(load)

    def step(self) -> None:
        """Once per engine step: pieces that wait for slots, copies that are done, deadlines."""
        for load in list(self._loads.values()):
            self._safely_move(load)

    def _safely_move(self, load: Load) -> None:
        """A mistake of ours costs one load, not the request that waits for it."""
        try:
            self._move(load)
        except Exception:
            self._tally.count("hook_errors", hook="load")
            if any(piece.transfer is not None and not piece.transfer.done for piece in load.pieces):
                return  # its blocks are being written; the next step comes here again
            for piece in load.pieces:
                piece.transfer = None
            load.cut(0, "INTERNAL_ERROR", "")
            if load.copy is not None:
                self._finish(load, load.copy, 0)
            else:
                self._stage(load)

    def _read(self, piece: Piece) -> None:
        load = piece.load
        keys = [self._key_name(key) for key in piece.keys]
        left_ms = max(1.0, (load.deadline - self._now()) * 1000)
        piece.task = self._link.load(keys, piece.slots, load.namespace, self._copier.chunk_bytes, left_ms, piece)
        if piece.task is None:
            load.cut(piece.first, self._link.refusal("load") or "INVALID_REQUEST", "")
            piece.landed = 0
            piece.release()

    def _move(self, load: Load) -> None:
        for piece in load.pieces:
            if piece.first < load.limit and not piece.slots and piece.landed is None:
                self._feed(load, piece)
        for piece in load.pieces:
            if piece.first >= load.limit:
                self._let_go(piece)
        if load.copy is None:
            self._stage(load)
        else:
            self._copy(load, load.copy)

    def _feed(self, load: Load, piece: Piece) -> None:
        """A piece that is not read yet, of a load that is copied as it lands or began while the mount was probing: reads it as soon as
        there are slots and the mount is used."""
        if piece.copied or (load.copy is not None and piece.first >= load.copy.chunks):
            return
        if self._now() >= load.deadline:
            load.cut(piece.first, "DEADLINE_EXCEEDED", "queue")
            return
        refused = self._link.refusal("load")
        if refused is not None:
            load.cut(piece.first, refused, "")
            return
        if self._link.is_probing("load"):
            return
        slots = self._link.lease(len(piece.keys), "load")
        if slots is not None:
            piece.slots = slots
            self._read(piece)

    def _stage(self, load: Load) -> None:
        """Reports it once all before the first failed chunk has landed."""
        if load.staged_at is not None or any(p.first < load.limit and p.landed is None for p in load.pieces):
            return
        load.staged_at = self._now()
        self.outcomes.staged(load)
        if load.limit == 0:
            self._forget(load)

    def _copy(self, load: Load, copy: CopyOrder) -> None:
        """Starts what has landed, in order; finishes the request when the last copy is over."""
        for piece in load.pieces:
            if piece.first >= min(copy.chunks, load.limit):
                break
            if piece.landed is None:
                break
            if piece.transfer is None and not piece.copied and load.blocks:
                count = min(piece.landed, copy.chunks - piece.first, load.limit - piece.first)
                chunks = [ChunkBlocks(piece.slots[i], load.blocks[piece.first + i]) for i in range(count)]
                load.copy_began = load.copy_began or self._now()
                piece.transfer = self._copier.copy_in(chunks)
        for piece in load.pieces:
            if piece.transfer is not None and piece.transfer.done:
                if piece.transfer.failed is not None:
                    load.cut(piece.first, "COPY_FAILED", "")
                piece.transfer, piece.copied = None, True
                piece.release()
        wanted = min(copy.chunks, load.limit)
        waiting = any(p.first < wanted and not p.copied for p in load.pieces)
        if waiting or any(p.transfer is not None for p in load.pieces):
            return
        self._finish(load, copy, wanted)

    def _finish(self, load: Load, copy: CopyOrder, usable: int) -> None:
        self.outcomes.finished(load, copy, usable)
        self._forget(load)

    def _let_go(self, piece: Piece) -> None:
        """Nobody will look at it any more. Slots that the kernel has come back when it is done; a running copy goes on."""
        if piece.transfer is not None:
            return
        if piece.task is not None:
            self._link.cancel(piece.task)
        piece.release()
        piece.landed = 0 if piece.landed is None else piece.landed

    def _forget(self, load: Load) -> None:
        for piece in load.pieces:
            self._let_go(piece)
        if self._loads.get(load.order.load) is load:
            del self._loads[load.order.load]

    # --- for the worker ----------------------------------------------------------------------------------------------

    def lives(self) -> set[int]:
        """Sidecar lives whose slots are still held."""
        return {slot.life for load in self._loads.values() for piece in load.pieces for slot in piece.slots}

    def close(self) -> None:
        for load in list(self._loads.values()):
            self._forget(load)
