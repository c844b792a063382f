"""Copies chunks between slots and KV blocks in device memory, without the host ever waiting for the device.

    out: gather KV pages → staging (device) → slot     the engine's stream waits for the gather, nobody for the rest
    in:  slot → staging (device) → scatter to KV pages

Own streams, one each way, which first wait for what the engine has launched so far: a block that is read has then been
written, and a block that is written is nobody else's any more. The engine's stream waits (on the device) until the pages
have been gathered, so that later steps may overwrite them at once. The host learns from an event, which it polls, that
slots may be handed on or a load may be reported.

Surprising: staging holds a bounded number of chunks. A larger order goes through it window by window, and then the engine's
stream waits for all transfers but the last window's.

All that is CUDA's own is in `Cuda`; tests bring a double of it and run everything else on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from ..client import Client
from .arena_pin import ArenaPin, Registrar
from .copier import ChunkShape
from .layout import Layout, LayoutRefused
from .transfers import ChunkBlocks, Transfer

STAGING_BYTES = 64 << 20
"""Device memory per direction, taken beside the KV cache; halved until it fits, down to one chunk."""
HOST_REGISTER_PORTABLE = 1


class Device(Registrar, Protocol):
    """Streams and events as torch.cuda has them."""

    def new_stream(self) -> Any: ...

    def current_stream(self) -> Any: ...

    def new_event(self) -> Any: ...

    def on(self, stream: Any) -> AbstractContextManager[Any]: ...

    def index(self, numbers: Sequence[int]) -> torch.Tensor:
        """On the device, sent without waiting."""


class Cuda:
    def __init__(self, device: torch.device) -> None:
        self._device = device

    def new_stream(self) -> Any:
        return torch.cuda.Stream(self._device)

    def current_stream(self) -> Any:
        return torch.cuda.current_stream(self._device)

    def new_event(self) -> Any:
        return torch.cuda.Event()

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = torch.cuda.stream(stream)
        return context

    def index(self, numbers: Sequence[int]) -> torch.Tensor:
        # From pageable memory the copy would wait for everything the stream has to do.
        return torch.tensor(numbers, dtype=torch.int64).pin_memory().to(self._device, non_blocking=True)

    def register(self, address: int, size_bytes: int) -> None:
        with torch.cuda.device(self._device):
            self._check(
                "cudaHostRegister", torch.cuda.cudart().cudaHostRegister(address, size_bytes, HOST_REGISTER_PORTABLE)
            )

    def unregister(self, address: int) -> None:
        with torch.cuda.device(self._device):
            self._check("cudaHostUnregister", torch.cuda.cudart().cudaHostUnregister(address))

    def settle(self) -> None:
        torch.cuda.synchronize(self._device)

    def _check(self, call: str, error: Any) -> None:
        number = int(getattr(error, "value", error))
        if number != 0:
            raise RuntimeError(f"{call} failed with CUDA error {number}")


class OnDevice:
    """A copy that the device works on. Holds what it needs until it is done."""

    def __init__(self, event: Any, held: list[Any], failed: str | None) -> None:
        self._event, self._held, self._failed = event, held, failed
        self._done = False

    @property
    def done(self) -> bool:
        if not self._done:
            try:
                self._done = bool(self._event is None or self._event.query())
            except Exception as error:  # the device is lost: nothing is written any more
                self._done, self._failed = True, f"{type(error).__name__}: {error}"
            if self._done:
                self._held.clear()
        return self._done

    @property
    def failed(self) -> str | None:
        return self._failed


class Way:
    """One direction: its stream, and memory for some chunks."""

    def __init__(self, device: Device, memory: torch.Tensor) -> None:
        self.stream = device.new_stream()
        self.memory = memory

    @property
    def chunks(self) -> int:
        return len(self.memory)


class DeviceCopier(ChunkShape):
    def __init__(self, layout: Layout, blocks_per_chunk: int, device: Device, staging_bytes: int = STAGING_BYTES) -> None:
        super().__init__(layout, blocks_per_chunk)
        self._device = device
        self._in = Way(device, self._staging(staging_bytes))
        self._out = Way(device, self._staging(staging_bytes))
        self._pin: ArenaPin | None = None

    def attach(self, client: Client) -> None:
        self._pin = ArenaPin(client, self._device)

    def ready(self, life: int) -> bool:
        return self._pin is not None and self._pin.ready(life)

    def look(self, life: int, in_use: Set[int]) -> None:
        if self._pin is not None:
            self._pin.look(life, in_use)

    def close(self) -> None:
        if self._pin is not None:
            self._pin.close()

    def copy_out(self, chunks: Sequence[ChunkBlocks]) -> Transfer:
        return self._run(self._out, chunks, self._gather)

    def copy_in(self, chunks: Sequence[ChunkBlocks]) -> Transfer:
        return self._run(self._in, chunks, self._scatter)

    def _run(self, way: Way, chunks: Sequence[ChunkBlocks], copy: Any) -> Transfer:
        held: list[Any] = []
        failed: str | None = None
        done = None
        try:
            with torch.inference_mode():
                engine = self._device.current_stream()
                launched = self._device.new_event()
                launched.record(engine)
                way.stream.wait_event(launched)
                try:
                    with self._device.on(way.stream):
                        for at in range(0, len(chunks), way.chunks):
                            window = chunks[at : at + way.chunks]
                            rows = [self.row(chunk) for chunk in window]
                            held.extend(rows)
                            copy(way, window, rows, engine if at + way.chunks >= len(chunks) else None)
                finally:  # what was launched before an error still runs, and its slots are not free before it has
                    event = self._device.new_event()
                    event.record(way.stream)
                    done = event
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
        return OnDevice(done, held, failed)

    def _gather(self, way: Way, chunks: Sequence[ChunkBlocks], rows: Sequence[torch.Tensor], engine: Any) -> None:
        index = [self._device.index([i for c in chunks for i in c.blocks[group]]) for group in range(self.groups)]
        for (start, end), segment in zip(self.spans, self.layout.segments, strict=True):
            pages = segment.view.index_select(0, index[segment.group])
            way.memory[: len(chunks), start:end].copy_(pages.view(len(chunks), -1))
        if engine is not None:
            gathered = self._device.new_event()
            gathered.record(way.stream)
            engine.wait_event(gathered)
        for number, row in enumerate(rows):
            row.copy_(way.memory[number], non_blocking=True)

    def _scatter(self, way: Way, chunks: Sequence[ChunkBlocks], rows: Sequence[torch.Tensor], engine: Any) -> None:
        for number, row in enumerate(rows):
            way.memory[number].copy_(row, non_blocking=True)
        index: list[tuple[torch.Tensor, torch.Tensor | None] | None] = []
        for group in range(self.groups):
            blocks = [block for chunk in chunks for block in chunk.blocks[group]]
            wanted = [i for i, block in enumerate(blocks) if block]
            some = None if len(wanted) == len(blocks) else self._device.index(wanted)
            index.append((self._device.index([blocks[i] for i in wanted]), some) if wanted else None)
        for (start, end), segment in zip(self.spans, self.layout.segments, strict=True):
            chosen = index[segment.group]
            if chosen is not None:
                pages = way.memory[: len(chunks), start:end].reshape(len(chunks) * self.blocks_per_chunk, -1)
                segment.view.index_copy_(0, chosen[0], pages if chosen[1] is None else pages.index_select(0, chosen[1]))

    def _staging(self, staging_bytes: int) -> torch.Tensor:
        chunks = max(1, staging_bytes // self.chunk_bytes)
        while True:
            try:
                return torch.empty((chunks, self.units), dtype=self.layout.unit, device=self.layout.device)
            except torch.OutOfMemoryError as error:
                if chunks == 1:
                    raise LayoutRefused(
                        f"no {self.chunk_bytes} bytes of device memory beside the KV cache; lower gpu_memory_utilization a little"
                    ) from error
                chunks //= 2
