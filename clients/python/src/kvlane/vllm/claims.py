"""What a request is promised: the way from a look-up to a claimed, copied hit.

    look-up → worth it? → slots? → ordered → staged on all ranks → claimed → copied          load mode staged
    look-up → worth it? → slots? → claimed → ordered and copied in one                       load mode async

Every question is answered at once: None (ask again), (n, True) or (0, False). Surprising: the engine's own hit may be longer
or shorter each time it asks. A longer one is left out of the copy, up to a part of a chunk; a shorter one needs another
load, and that is tried a few times only.
"""

from __future__ import annotations

from collections.abc import Callable

from .agreement import Agreement
from .config import ConnectorOptions
from .features import Features
from .geometry import Geometry
from .known_keys import KnownKeys
from .link import Link
from .loads import Load, Loads
from .lookups import Lookups
from .messages import CopyOrder, Staged
from .requests import Tracked
from .stats import Tally
from .worth import Worth

Answer = tuple[int | None, bool]
NOTHING: Answer = (0, False)
ASK_AGAIN: Answer = (None, False)

RESTARTS_MAX = 2
"""Loads of one request that may be thrown away because the engine's own hit became shorter."""
PAUSE_US = 250_000
"""After a worker said that its mount is suspended, so long nothing is ordered: every order would cost a request a step. Short,
because the next one is how we learn that the mount is back."""
UNPROVEN = frozenset({"MOUNT_SUSPENDED", "SIDECAR_GONE", "SATURATED", "SHUTTING_DOWN", "REPORT"})
"""Failures that say nothing about the chunks."""
BAD = frozenset({"NOT_FOUND", "CORRUPT", "LENGTH_MISMATCH", "IO_ERROR"})
"""Failures that the next load of the chunk would meet again."""


class Claims:
    def __init__(
        self, options: ConnectorOptions, features: Features, geometry: Geometry, link: Link, agreement: Agreement,
        lookups: Lookups, known: KnownKeys, loads: Loads, worth: Worth, tally: Tally, now_us: Callable[[], int],
    ) -> None:  # fmt: skip
        self.chunk_bytes = 0
        """On one rank. 0: not known, and then every load is worth it."""
        self._budget_us = int(options.lookup_budget_ms * 1000)
        self._staged = features.load_mode == "staged"
        self._geometry, self._link, self._agreement = geometry, link, agreement
        self._lookups, self._known, self._loads, self._worth = lookups, known, loads, worth
        self._tally, self._now_us = tally, now_us
        self._paused_until_us = 0

    # --- questions ---------------------------------------------------------------------------------------------------

    def begin(self, tracked: Tracked) -> None:
        """The look-up, as early as possible."""
        namespace = self._agreement.key_namespace
        if (
            tracked.lookup is not None
            or namespace is None
            or self._never(tracked)
            or self._not_now()
            or self._link.is_probing("metadata")
        ):
            return
        if not self._lookups.is_full:
            tracked.keys.refresh(tracked.request.block_hashes)
            tracked.lookup = self._lookups.start(tracked.keys.upto(self._promisable(tracked)), namespace)

    def ask(self, tracked: Tracked, computed: int) -> Answer:
        if tracked.load is not None and tracked.load.state in ("planned", "ordered"):
            answer = self._promise(tracked, tracked.load, computed)
            if answer is not None:
                return answer
        if tracked.load is not None or tracked.refused or self._never(tracked) or computed % self._geometry.block_tokens:
            return NOTHING
        if self._not_now():
            self._tally.count("refused", op="load")
            return self._refuse(tracked)
        if tracked.asked_us is None:
            tracked.asked_us = self._now_us()
        is_late = self._now_us() >= tracked.asked_us + self._budget_us
        self.begin(tracked)
        if tracked.lookup is None or not self._lookups.settled(tracked.lookup):  # also while the mount is probing
            return self._refuse(tracked) if is_late else ASK_AGAIN
        return self._start(tracked, computed, is_late)

    def _start(self, tracked: Tracked, computed: int, is_late: bool) -> Answer:
        """The look-up has been answered."""
        chunk_tokens = self._geometry.chunk_tokens
        first = computed // chunk_tokens
        keys = tracked.keys.upto(self._promisable(tracked))
        hit = self._known.leading(keys)
        if hit <= first:
            return self._refuse(tracked)
        # An asynchronous load is read piece by piece, as slots come free; what is staged needs all of them at once.
        free = self._loads.free_slots if self._staged else None
        if free is not None and free < hit - first:
            # Few slots now may be many in a moment; but waiting has its budget, and then a part is better than nothing.
            if not is_late and free < (self._loads.slots or 0) // 2:
                return ASK_AGAIN
            hit = first + free
            if hit <= first:
                self._tally.count("refused", op="load")
                return self._refuse(tracked)
        tokens = hit * chunk_tokens - computed
        if not self._worth.is_worth(tokens, (hit - first) * self.chunk_bytes):
            self._tally.count("not_worth")
            return self._refuse(tracked)
        load = self._loads.plan(tracked.request.request_id, first, tuple(keys[first:hit]), self._worth.timeout_ms(tokens))
        tracked.load = load
        if self._staged:
            self._loads.order(load)
            return ASK_AGAIN
        return self._promise(tracked, load, computed) or NOTHING

    def _promise(self, tracked: Tracked, load: Load, computed: int) -> Answer | None:
        """What a load is good for now. None: for nothing, and another one may be tried."""
        usable = Staged(load.chunks)
        if self._staged:
            said = self._loads.usable(load)
            if said is None:
                return ASK_AGAIN
            usable = said
            self._learn(tracked, load, said)
        promised = (load.first + usable.chunks) * self._geometry.chunk_tokens - computed
        if computed < load.first * self._geometry.chunk_tokens:
            self._drop(tracked, load)
            tracked.restarts += 1
            tracked.asked_us = None
            if tracked.restarts > RESTARTS_MAX:
                tracked.given_up = "the engine's own hit became shorter again and again"
            return None
        if usable.chunks < 1 or promised <= 0:
            self._drop(tracked, load)
            return self._refuse(tracked)
        load.claimed = (computed, promised)
        return promised, True

    # --- consequences ------------------------------------------------------------------------------------------------

    def allocated(self, tracked: Tracked, external: int) -> None:
        """The engine has made room, and uses `external` tokens of ours. A claim is only good for this moment."""
        load = tracked.load
        tracked.ask_anew()
        if load is None or load.state not in ("planned", "ordered"):
            return
        if external <= 0 or load.claimed is None:
            self._drop(tracked, load)
            return
        computed, _ = load.claimed
        self._loads.copy(load, self._copy_order(load, tracked.blocks, computed, computed + external))
        self._tally.count("requests_hit")
        self._tally.count("hit_tokens", external)

    def _copy_order(self, load: Load, table: tuple[list[int], ...], start: int, end: int) -> CopyOrder:
        """Tokens from `start` to `end`. Blocks outside are vLLM's null block: not copied."""
        per_chunk, block_tokens = self._geometry.blocks_per_chunk, self._geometry.block_tokens
        first = load.first * per_chunk
        from_block, to_block = start // block_tokens, -(-end // block_tokens)
        chunks = min(-(-(to_block - first) // per_chunk), load.chunks)
        skip = min(from_block - first, per_chunk - 1)
        wanted = range(first + skip, first + chunks * per_chunk)
        blocks = tuple(tuple(ids[i] if from_block <= i < to_block and i < len(ids) else 0 for i in wanted) for ids in table)
        load.skipped = skip
        return CopyOrder(load.number, load.request_id, chunks, skip, blocks)

    def failed(self, load: Load, tracked: Tracked | None, first_bad: int) -> None:
        """A load that had been claimed. `first_bad`: of its destination blocks; 0 when only the request is known."""
        if load.has_failed:
            return
        load.has_failed = True
        chunk = min((first_bad + load.skipped) // self._geometry.blocks_per_chunk, load.chunks - 1)
        self._known.forget(load.keys[chunk:])
        if load.claimed is not None:
            lost = sum(load.claimed) - (load.first + chunk) * self._geometry.chunk_tokens
            self._tally.count("recomputed_tokens", min(lost, load.claimed[1]), reason="load_failed")
        if tracked is not None and tracked.load is load:
            tracked.given_up = "a load failed"
            tracked.next_store = 0

    def _learn(self, tracked: Tracked, load: Load, said: Staged) -> None:
        """From how far a load came. Once per load: it is asked about at every step."""
        if load.is_learned or (said.chunks >= load.chunks and not said.code):
            return
        load.is_learned = True
        tracked.given_up = f"a load ended with {said.code or 'nothing'}"
        code = said.code or "UNKNOWN"
        lost = (load.chunks - said.chunks) * self._geometry.chunk_tokens
        self._tally.count("recomputed_tokens", lost, reason=reason_of(code))
        if code == "REPORT":
            self._tally.count("load_timeouts", phase="report")
        if code in ("MOUNT_SUSPENDED", "SIDECAR_GONE"):
            self._paused_until_us = self._now_us() + PAUSE_US
        if code in UNPROVEN:
            return
        self._known.forget(load.keys[said.chunks :])
        if code in BAD and said.chunks < load.chunks:
            self._known.add_bad(load.keys[said.chunks])

    # --- within ------------------------------------------------------------------------------------------------------

    def _never(self, tracked: Tracked) -> bool:
        return bool(tracked.given_up) or bool(getattr(tracked.request, "skip_reading_prefix_cache", False))

    def _not_now(self) -> bool:
        return self._link.refusal("metadata") is not None or self._now_us() < self._paused_until_us

    def _promisable(self, tracked: Tracked) -> int:
        """Chunks. vLLM asserts that a request that was never preempted is promised no more than its prompt."""
        request = tracked.request
        tokens = request.num_tokens
        if not getattr(request, "num_preemptions", 0):
            tokens = min(tokens, getattr(request, "num_prompt_tokens", tokens))
        return min(tokens // self._geometry.chunk_tokens, len(tracked.keys))

    def _refuse(self, tracked: Tracked) -> Answer:
        tracked.refused = True
        return NOTHING

    def _drop(self, tracked: Tracked, load: Load) -> None:
        self._loads.drop(load)
        tracked.load = None


def reason_of(code: str) -> str:
    """A label: few words."""
    words = {"DEADLINE_EXCEEDED": "timeout", "REPORT": "timeout", "MOUNT_SUSPENDED": "suspended", "CORRUPT": "corrupt"}
    return words.get(code, "load_failed")
