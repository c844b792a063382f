"""The other arm: an in-process connector as one writes it in an afternoon. Threads of the vLLM worker read and write the files.

It is no straw man: loads and stores are asynchronous, the scheduler never touches the mount (it lists the directory once, at start),
and everything is right as long as the mount answers. It has no deadline, because there is none to be had: a thread inside a read of a
device that does not answer cannot be told to come back. One file per vLLM block, all layers, O_DIRECT.
"""
from __future__ import annotations

import mmap
import os
import queue
import threading
from dataclasses import dataclass, field

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata

PAGE = 4096
THREADS = 8


@dataclass
class Work(KVConnectorMetadata):
    loads: list[tuple[str, list[str], list[int]]] = field(default_factory=list)  # request, names, block ids
    saves: list[tuple[str, list[str], list[int]]] = field(default_factory=list)


class PlainConnector(KVConnectorBase_V1):
    def __init__(self, vllm_config, role, kv_cache_config=None) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self.root = self._kv_transfer_config.get_from_extra_config("root", "")
        self.block_size = vllm_config.cache_config.block_size
        self.known = set(os.listdir(self.root))
        self.work, self.claims, self.saving = Work(), {}, {}
        self.jobs: queue.SimpleQueue = queue.SimpleQueue()
        self.sent: set[str] = set()
        self.received: set[str] = set()

    # ---- scheduler

    def get_num_new_matched_tokens(self, request, num_computed_tokens):
        first, n = num_computed_tokens // self.block_size, 0
        names = [h.hex() for h in request.block_hashes]
        full = (request.num_tokens - 1) // self.block_size  # one token at least is left to compute
        while first + n < min(full, len(names)) and names[first + n] in self.known:
            n += 1
        self.claims[request.request_id] = names[first : first + n], first
        return n * self.block_size, n > 0

    def update_state_after_alloc(self, request, blocks, num_external_tokens) -> None:
        names, first = self.claims.pop(request.request_id, ([], 0))
        if num_external_tokens:
            ids = blocks.get_block_ids()[0][first : first + len(names)]
            self.work.loads.append((request.request_id, names, list(ids)))

    def build_connector_meta(self, scheduler_output):
        work, self.work = self.work, Work()
        return work

    def request_finished(self, request, block_ids):
        n = min(request.num_computed_tokens // self.block_size, len(request.block_hashes), len(block_ids))
        new = [(h.hex(), b) for h, b in zip(request.block_hashes[:n], block_ids) if h.hex() not in self.known]
        if new:
            self.known.update(name for name, _ in new)
            self.work.saves.append((request.request_id, [name for name, _ in new], [b for _, b in new]))
        return bool(new), None

    # ---- worker

    def register_kv_caches(self, kv_caches) -> None:
        blocks = self._kv_cache_config.num_blocks
        layers = [kv_caches[name] for name in sorted(kv_caches)]
        self.layers = [t.movedim(list(t.shape).index(blocks), 0) for t in layers]
        self.bytes = sum(t[0].numel() * t.element_size() for t in self.layers)
        for _ in range(THREADS):
            threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        buffer = mmap.mmap(-1, -(-self.bytes // PAGE) * PAGE)
        while True:
            self.jobs.get()(buffer)

    def load(self, request: str, names: list[str], ids: list[int], buffer: mmap.mmap) -> None:
        for name, block in zip(names, ids):
            fd = os.open(os.path.join(self.root, name), os.O_RDONLY | os.O_DIRECT)
            assert os.preadv(fd, [buffer], 0) == len(buffer), name
            os.close(fd)
            at = 0
            for layer in self.layers:
                bytes_ = layer[block].numel() * layer.element_size()
                page = torch.frombuffer(buffer, dtype=layer.dtype, count=layer[block].numel(), offset=at)
                layer[block].copy_(page.view(layer[block].shape))
                at += bytes_
        self.received.add(request)

    def save(self, names: list[str], pages: list[bytes], buffer: mmap.mmap) -> None:
        for name, page in zip(names, pages):
            path = os.path.join(self.root, name)
            buffer[: self.bytes] = page
            fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o600)
            os.pwritev(fd, [buffer], 0)
            os.close(fd)
            os.rename(path + ".tmp", path)

    def start_load_kv(self, forward_context, **kwargs) -> None:
        work = self._get_connector_metadata()
        for request, names, ids in work.loads:
            self.jobs.put(lambda buffer, r=request, n=names, i=ids: self.load(r, n, i, buffer))
        for request, names, ids in work.saves:
            pages = [b"".join(layer[i].contiguous().view(torch.uint8).numpy().tobytes() for layer in self.layers) for i in ids]
            self.sent.add(request)
            self.jobs.put(lambda buffer, n=names, p=pages: self.save(n, p, buffer))

    def get_finished(self, finished_req_ids):
        sent, self.sent = self.sent, set()
        received = {self.received.pop() for _ in range(len(self.received))}
        return sent or None, received or None

    def wait_for_layer_load(self, layer_name) -> None: ...

    def save_kv_layer(self, layer_name, kv_layer, attn_metadata, **kwargs) -> None: ...

    def wait_for_save(self) -> None: ...
