"""vLLM's KV tensors as pages: which bytes belong to block b, per layer and KV group.

Everything is taken from the tensors' own shapes and strides, since layouts differ by attention backend and change from
release to release: blocks in the first dimension, or in the second behind K and V; rows that are parts of a block (kernel
blocks); heads outside of blocks; blocks further apart than they are long, because other layers' pages lie between.

Surprising: a block's bytes are kept in the order of memory, not of dimensions, so that a page is one run where it can be.
The digest says which order that is. It does not depend on the number of blocks, or a restart with more memory would miss.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

SEGMENTS_MAX = 64
"""Runs a layer's page may consist of: each is a copy of its own. K and V make two, heads outside of blocks a few more."""
WIDE_BYTES = 8
"""Copies move eight bytes at a time where everything is a multiple of it."""


class LayoutRefused(ValueError):
    """These KV tensors cannot be stored. One sentence for the log."""


@dataclass(frozen=True)
class Segment:
    """A run of bytes in each block of one layer."""

    group: int
    view: torch.Tensor
    """[num_blocks, bytes or words of the run]; blocks may be further apart than that."""
    nbytes: int


@dataclass(frozen=True)
class Layout:
    segments: tuple[Segment, ...]
    groups: int
    num_blocks: int
    block_bytes: int
    unit: torch.dtype
    """uint8, or int64 where every address allows it."""
    device: torch.device
    digest: str


@dataclass(frozen=True)
class _Run:
    """As a Segment, in numbers of bytes."""

    offset: int
    block_stride: int
    nbytes: int


def read_layout(kv_caches: Mapping[str, Any], kv_cache_config: Any) -> Layout:
    """Raises LayoutRefused."""
    groups = list(kv_cache_config.kv_cache_groups)
    num_blocks = int(kv_cache_config.num_blocks)
    group_of = _groups(groups)
    tensors = {name: _tensor(name, given) for name, given in kv_caches.items()}
    if not tensors:
        raise LayoutRefused("vLLM has registered no KV tensors")
    missing = [name for name in group_of if name not in tensors]
    if missing:
        raise LayoutRefused(f"vLLM has registered no KV tensor for layer {missing[0]}")
    devices = {tensor.device for tensor in tensors.values()}
    if len(devices) != 1:
        raise LayoutRefused(f"the KV tensors lie on several devices: {sorted(map(str, devices))}")

    taken: dict[tuple[int, Place], str] = {}
    places = {_place(tensors[name]) for name in group_of}
    runs: list[tuple[int, torch.Tensor, _Run]] = []
    facts: list[Any] = []
    for name, tensor in tensors.items():
        if name not in group_of:
            if _place(tensor) in places:  # uses another layer's cache, which is stored there
                continue
            raise LayoutRefused(f"layer {name} has a KV tensor but is in no KV cache group")
        group = group_of[name]
        first = taken.setdefault((group, _place(tensor)), name)
        if first != name:
            facts.append([name, group, "shares", first])
            continue
        found, order = _runs(name, tensor, num_blocks)
        _check_page(name, groups[group].kv_cache_spec, sum(run.nbytes for run in found))
        runs.extend((group, tensor, run) for run in found)
        facts.append([name, group, str(tensor.dtype), *order])

    numbers = [n for _, _, run in runs for n in (run.offset, run.block_stride, run.nbytes)]
    addresses = [tensor.untyped_storage().data_ptr() for _, tensor, _ in runs]
    wide = all(n % WIDE_BYTES == 0 for n in itertools.chain(numbers, addresses))
    unit = torch.int64 if wide else torch.uint8
    segments = tuple(Segment(group, _view(tensor, run, num_blocks, unit), run.nbytes) for group, tensor, run in runs)
    device = devices.pop()
    return Layout(
        segments=segments,
        groups=len(groups),
        num_blocks=num_blocks,
        block_bytes=sum(segment.nbytes for segment in segments),
        unit=unit,
        device=device,
        digest=_digest({"layers": facts, "device": kind_of(device), "isa": instruction_set(device)}),
    )


def kind_of(device: torch.device) -> str:
    """ROCm devices are called cuda too, but their eight-bit floats are others, and so are some backends' pages."""
    return "hip" if device.type == "cuda" and torch.version.hip else device.type


def instruction_set(device: torch.device) -> str:
    """vLLM's CPU kernels pack keys and values as the processor likes them; on other devices it does not matter."""
    if device.type != "cpu":
        return ""
    tile = getattr(getattr(torch._C, "_cpu", None), "_is_amx_tile_supported", None)
    return str(torch.backends.cpu.get_cpu_capability()) + ("+AMX" if tile is not None and tile() else "")


def _groups(groups: Sequence[Any]) -> dict[str, int]:
    group_of: dict[str, int] = {}
    for number, group in enumerate(groups):
        if getattr(group, "host_resident", False) or not getattr(group, "enable_kv_transfer", True):
            raise LayoutRefused(f"KV cache group {number} lies in host memory or is not meant for transfer")
        group_of.update((name, number) for name in group.layer_names)
    return group_of


def _tensor(name: str, given: Any) -> torch.Tensor:
    if not isinstance(given, torch.Tensor):
        raise LayoutRefused(
            f"layer {name} has a list of tensors as its cache (a state-space layer); only attention layers are stored"
        )
    if given.dim() < 2 or given.numel() == 0:
        raise LayoutRefused(f"the KV tensor of layer {name} is {tuple(given.shape)}, which has no blocks")
    return given


Place = tuple[int, tuple[int, ...], tuple[int, ...]]


def _place(tensor: torch.Tensor) -> Place:
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())


def _runs(name: str, tensor: torch.Tensor, num_blocks: int) -> tuple[list[_Run], list[Any]]:
    """The runs of a page in memory order, and what the digest says of them."""
    size, width = tuple(tensor.shape), tensor.element_size()
    stride = [step * width for step in tensor.stride()]
    behind_kv = size[0] == 2 and size[1] % num_blocks == 0
    if size[0] % num_blocks == 0 and not (behind_kv and num_blocks <= 2):
        at = 0
    elif behind_kv and num_blocks > 2:
        at = 1
    else:
        raise LayoutRefused(f"the KV tensor of layer {name} is {size}; where its {num_blocks} blocks are cannot be told")
    parts = size[at] // num_blocks
    block_stride = stride[at] * parts
    inner = [(size[i], stride[i]) for i in range(len(size)) if i != at]
    inner = [*inner[:at], (parts, stride[at]), *inner[at:]]  # kernel blocks: in the place of the block dimension
    by_memory = sorted(range(len(inner)), key=lambda i: -inner[i][1])
    outer = [inner[i] for i in by_memory if inner[i][0] > 1]
    run = width
    while outer and outer[-1][1] == run:
        run *= outer.pop()[0]
    if any(step < run for _, step in outer) or block_stride < run:
        raise LayoutRefused(f"the KV tensor of layer {name} overlaps itself: {size} with strides {tuple(stride)} bytes")
    starts = [sum(steps) for steps in itertools.product(*[[n * step for n in range(many)] for many, step in outer])]
    if len(starts) > SEGMENTS_MAX:
        raise LayoutRefused(
            f"a block of layer {name} lies in {len(starts)} pieces of {run} bytes, more than {SEGMENTS_MAX}; another KV cache "
            "layout (VLLM_KV_CACHE_LAYOUT) would keep it together"
        )
    base = tensor.storage_offset() * width
    order = [at, parts, [count for count, _ in inner], [i for i in by_memory if inner[i][0] > 1], len(starts)]
    return [_Run(base + start, block_stride, run) for start in starts], order


def _check_page(name: str, spec: Any, found: int) -> None:
    """A page that has more bytes than the tensor shows keeps something elsewhere, such as the scales of a quantised cache."""
    spec = getattr(spec, "kv_cache_specs", {}).get(name, spec)
    for fact in ("unpadded_page_size_bytes", "real_page_size_bytes"):
        wanted = getattr(spec, fact, None)
        if isinstance(wanted, int) and found < wanted:
            raise LayoutRefused(
                f"a block of layer {name} has {wanted} bytes, but its KV tensor shows {found}: something of it lies elsewhere"
            )


def _view(tensor: torch.Tensor, run: _Run, num_blocks: int, unit: torch.dtype) -> torch.Tensor:
    size = unit.itemsize
    view = torch.empty(0, dtype=unit, device=tensor.device)
    place = (num_blocks, run.nbytes // size), (run.block_stride // size, 1)
    return view.set_(tensor.untyped_storage(), run.offset // size, *place)


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]
