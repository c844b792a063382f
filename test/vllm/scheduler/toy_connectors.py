"""In-process connectors for the harness's own tests: one that works, and broken ones that the harness must catch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from vllm.distributed.kv_transfer.kv_connector.v1 import KVConnectorBase_V1, KVConnectorRole, SupportsHMA
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata


@dataclass
class Plan(KVConnectorMetadata):
    loads: list[tuple[str, list[bytes], list[int]]] = field(default_factory=list)
    stores: list[tuple[bytes, int]] = field(default_factory=list)


class MemoryConnector(KVConnectorBase_V1, SupportsHMA):
    """Keeps blocks in a dict of the process; loads are over one step later."""

    store: ClassVar[dict[tuple[int, bytes], dict[str, torch.Tensor]]] = {}

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any = None) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self.rank = vllm_config.parallel_config.rank
        self.block_size = vllm_config.cache_config.block_size
        self.plan = Plan()
        self.running: dict[str, tuple[Any, list[int]]] = {}
        self.begun: list[tuple[str, list[bytes], list[int]]] = []
        self.done: set[str] = set()

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        hit = 0
        for digest in request.block_hashes[: request.num_prompt_tokens // self.block_size]:
            if (0, bytes(digest)) not in self.store:
                break
            hit += 1
        tokens = hit * self.block_size - num_computed_tokens
        return (tokens, True) if tokens > 0 else (0, False)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        ids = list(blocks.get_block_ids()[0])
        self.running[request.request_id] = (request, ids)
        if num_external_tokens:
            count = num_external_tokens // self.block_size
            first = len(ids) - count
            hashes = [bytes(digest) for digest in request.block_hashes[first : first + count]]
            self.plan.loads.append((request.request_id, hashes, ids[first:]))

    def build_connector_meta(self, scheduler_output: Any) -> Plan:
        cached = scheduler_output.scheduled_cached_reqs
        for new in scheduler_output.scheduled_new_reqs:
            self.running[new.req_id] = (self.running[new.req_id][0], list(new.block_ids[0]))
        for request_id, more in zip(cached.req_ids, cached.new_block_ids, strict=True):
            request, ids = self.running[request_id]
            self.running[request_id] = (
                request,
                ([] if request_id in cached.resumed_req_ids else ids) + list((more or [[]])[0]),
            )
        for request_id, count in scheduler_output.num_scheduled_tokens.items():
            request, ids = self.running[request_id]
            for index in range(min((request.num_computed_tokens + count) // self.block_size, len(request.block_hashes))):
                self.plan.stores.append((bytes(request.block_hashes[index]), ids[index]))
        plan, self.plan = self.plan, Plan()
        return plan

    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, None]:
        return False, None

    request_finished_all_groups = request_finished

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        self.kv = kv_caches

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        for request, hashes, ids in self.begun:
            for digest, block in zip(hashes, ids, strict=True):
                self.put(digest, block)
            self.done.add(request)
        self.begun = list(self._get_connector_metadata().loads)

    def put(self, digest: bytes, block: int) -> None:
        for layer, pages in self.store[self.rank, digest].items():
            self.kv[layer][block] = pages

    def wait_for_layer_load(self, layer_name: str) -> None: ...

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None: ...

    def wait_for_save(self) -> None:
        for digest, block in self._get_connector_metadata().stores:
            self.store[self.rank, digest] = {layer: tensor[block].clone() for layer, tensor in self.kv.items()}

    def get_finished(self, finished_req_ids: set[str]) -> tuple[None, set[str]]:
        done, self.done = self.done, set()
        return None, done


class TearingConnector(MemoryConnector):
    """Leaves out the last layer of one block."""

    def put(self, digest: bytes, block: int) -> None:
        super().put(digest, block)
        list(self.kv.values())[-1][block, :, 8:] = 0


class EarlyConnector(MemoryConnector):
    """Says that a load is over before it copies."""

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        self.done.update(request for request, _, _ in self._get_connector_metadata().loads)


class LateConnector(MemoryConnector):
    """Copies once more, long after the blocks were given back."""

    kept: ClassVar[list[tuple[bytes, int]]] = []

    def put(self, digest: bytes, block: int) -> None:
        super().put(digest, block)
        self.kept.append((digest, block))

    def wait_for_save(self) -> None:
        super().wait_for_save()
        if len(self.kept) > 4 and not self._get_connector_metadata().loads:
            for digest, block in self.kept:
                super().put(digest, block)


class KeepingConnector(MemoryConnector):
    """Never lets go of a finished request's blocks."""

    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, None]:
        return True, None

    request_finished_all_groups = request_finished


__all__ = ["EarlyConnector", "KeepingConnector", "LateConnector", "MemoryConnector", "SupportsHMA", "TearingConnector"]
