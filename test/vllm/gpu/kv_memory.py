"""KV tensors in the layouts that vLLM's backends have had, slots to copy to, and devices to copy with."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kvlane.vllm.copier import ChunkShape, CpuCopier
from kvlane.vllm.device_copier import Cuda, DeviceCopier
from kvlane.vllm.layout import Layout, read_layout
from kvlane.vllm.transfers import ChunkBlocks

BLOCKS = 24
TOKENS = 16
HEADS = 2
HEAD = 8

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

Make = Callable[[str], dict[str, torch.Tensor]]


def _random(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    size = torch.empty(shape, dtype=dtype).nbytes
    return torch.randint(0, 256, (size,), dtype=torch.uint8, device=device).view(dtype).view(shape)


def cpu_attention(device: str) -> dict[str, torch.Tensor]:
    """[blocks, heads, tokens, 2 * head], dense."""
    return {f"l{i}": _random(BLOCKS, HEADS, TOKENS, 2 * HEAD, device=device) for i in range(3)}


def flash_attention(device: str) -> dict[str, torch.Tensor]:
    """[K or V, blocks, tokens, heads, head]."""
    return {f"l{i}": _random(2, BLOCKS, TOKENS, HEADS, HEAD, dtype=torch.bfloat16, device=device) for i in range(3)}


def tokens_before_heads(device: str) -> dict[str, torch.Tensor]:
    """[blocks, heads, tokens, 2 * head] by shape, tokens before heads in memory."""
    return {f"l{i}": _random(BLOCKS, TOKENS, HEADS, 2 * HEAD, device=device).transpose(1, 2) for i in range(3)}


def blocks_of_all_layers(device: str) -> dict[str, torch.Tensor]:
    """[blocks, layers, …] in one tensor: a layer's blocks lie apart."""
    whole = _random(BLOCKS, 3, HEADS, TOKENS, 2 * HEAD, device=device)
    return {f"l{i}": whole[:, i] for i in range(3)}


def padded(device: str) -> dict[str, torch.Tensor]:
    """Pages with padding behind them that is nobody's."""
    return {f"l{i}": _random(BLOCKS, 300, device=device)[:, :256].view(BLOCKS, 256) for i in range(2)}


def kernel_blocks(device: str) -> dict[str, torch.Tensor]:
    """Four rows of four tokens are one block."""
    return {f"l{i}": _random(BLOCKS * 4, HEADS, TOKENS // 4, 2 * HEAD, device=device) for i in range(3)}


def kernel_blocks_behind_kv(device: str) -> dict[str, torch.Tensor]:
    return {f"l{i}": _random(2, BLOCKS * 2, TOKENS // 2, HEADS, HEAD, device=device) for i in range(2)}


def heads_outside(device: str) -> dict[str, torch.Tensor]:
    """[heads, blocks, …] in memory."""
    return {f"l{i}": _random(HEADS, BLOCKS, TOKENS, 2 * HEAD, device=device).transpose(0, 1) for i in range(2)}


def odd_bytes(device: str) -> dict[str, torch.Tensor]:
    """Pages that are no multiple of eight bytes."""
    return {f"l{i}": _random(BLOCKS, 37, dtype=torch.uint8, device=device) for i in range(2)}


def different_pages(device: str) -> dict[str, torch.Tensor]:
    """A layer that keeps less than the others."""
    return {"l0": _random(BLOCKS, TOKENS, 96, device=device), "l1": _random(BLOCKS, TOKENS, 8, device=device)}


LAYOUTS: list[Make] = [
    cpu_attention, flash_attention, tokens_before_heads, blocks_of_all_layers, padded, kernel_blocks,
    kernel_blocks_behind_kv, heads_outside, odd_bytes, different_pages,
]  # fmt: skip


def config(*groups: Sequence[str], blocks: int = BLOCKS, spec: Any = None) -> Any:
    spec = spec or SimpleNamespace(block_size=TOKENS)
    return SimpleNamespace(
        num_blocks=blocks, kv_cache_groups=[SimpleNamespace(layer_names=list(names), kv_cache_spec=spec) for names in groups]
    )


def layout_of(caches: dict[str, torch.Tensor]) -> Layout:
    return read_layout(caches, config(list(caches)))


def block_of(tensor: torch.Tensor, block: int) -> torch.Tensor:
    """What vLLM calls that block, whatever the layout."""
    if tensor.shape[0] == 2 and tensor.shape[1] % BLOCKS == 0:
        parts = tensor.shape[1] // BLOCKS
        return tensor[:, block * parts : (block + 1) * parts]
    parts = tensor.shape[0] // BLOCKS
    return tensor[block * parts : (block + 1) * parts]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """For exact comparison: random bytes are often not numbers."""
    return tensor.contiguous().view(torch.uint8).cpu().clone()


class MemorySlot:
    """A slot in memory of our own."""

    life = 1

    def __init__(self, memory: memoryview) -> None:
        self.view = memory


def slots(count: int, size: int, *, pinned: bool = False) -> list[Any]:
    if pinned:
        memory = torch.zeros((count, size), dtype=torch.uint8).pin_memory()
        return [MemorySlot(memoryview(memory[i].numpy())) for i in range(count)]
    whole = memoryview(mmap.mmap(-1, count * size))
    return [MemorySlot(whole[i * size : (i + 1) * size]) for i in range(count)]


class Log(list[str]):
    pass


class DoubleStream:
    def __init__(self, name: str, log: Log) -> None:
        self.name, self._log = name, log

    def wait_event(self, event: DoubleEvent) -> None:
        self._log.append(f"{self.name} waits for {event.of}")


class DoubleEvent:
    def __init__(self, double: Double) -> None:
        self._double = double
        self.of = ""

    def record(self, stream: DoubleStream) -> None:
        self.of = f"{stream.name}@{sum(line.startswith('event ' + stream.name) for line in self._double.log)}"
        self._double.log.append(f"event {self.of}")

    def query(self) -> bool:
        if self._double.lost:
            raise RuntimeError("device lost")
        return self._double.complete


class Double:
    """A device whose work is done at once on the CPU, and whose events complete when the test says so."""

    def __init__(self) -> None:
        self.log = Log()
        self.complete = True
        self.lost = False
        self._streams = 0
        self._engine = DoubleStream("engine", self.log)

    def new_stream(self) -> DoubleStream:
        self._streams += 1
        return DoubleStream(("in", "out")[self._streams - 1], self.log)

    def current_stream(self) -> DoubleStream:
        return self._engine

    def new_event(self) -> DoubleEvent:
        return DoubleEvent(self)

    @contextlib.contextmanager
    def on(self, stream: DoubleStream) -> Iterator[None]:
        self.log.append(f"begin {stream.name}")
        yield
        self.log.append(f"end {stream.name}")

    def index(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64)

    def register(self, address: int, size_bytes: int) -> None:
        self.log.append("register")

    def unregister(self, address: int) -> None:
        self.log.append("unregister")

    def settle(self) -> None:
        self.log.append("settle")


KINDS = ["cpu", "double", pytest.param("cuda", marks=no_cuda)]


def make_copier(kind: str, layout: Layout, per_chunk: int, staging_chunks: int = 2) -> Any:
    """Staging for two chunks: larger orders go through it in windows."""
    if kind == "cpu":
        return CpuCopier(layout, per_chunk)
    staging_bytes = staging_chunks * layout.block_bytes * per_chunk
    device: Any = Double() if kind == "double" else Cuda(layout.device)
    return DeviceCopier(layout, per_chunk, device, staging_bytes)


def chunks(copier: ChunkShape, slots: Sequence[Any], *groups: Sequence[int]) -> list[ChunkBlocks]:
    c = copier.blocks_per_chunk
    return [ChunkBlocks(slot, tuple(tuple(ids[i * c : (i + 1) * c]) for ids in groups)) for i, slot in enumerate(slots)]


def finish(transfer: Any) -> None:
    """Waits for a copy, and it must be a good one."""
    from support import eventually

    eventually(lambda: transfer.done)
    assert transfer.failed is None, transfer.failed
