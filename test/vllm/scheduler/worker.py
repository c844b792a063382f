"""One rank: what vLLM's model runner (V1) does with its connector in a step, in the order of KVConnectorModelRunnerMixin."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.utils import copy_kv_blocks
from vllm.distributed.kv_transfer.kv_connector.v1 import KVConnectorRole
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput

from configs import Setup, for_rank
from model import RankModel


class Worker:
    def __init__(self, setup: Setup, config: Any, cache: Any, rank: int) -> None:
        self.rank, self.start_first = rank, setup.start_load == "before"
        mine = for_rank(config, rank, setup.world)
        self.connector = KVConnectorFactory.create_connector(mine, KVConnectorRole.WORKER, cache)
        self.model = RankModel(rank, setup.layers, setup.blocks, setup.block_size)
        self.connector.register_kv_caches(self.model.kv)
        self.connector.set_host_xfer_buffer_ops(copy_kv_blocks)
        self.during_forward: Callable[[], None] = lambda: None

    def execute(self, scheduled: Any) -> ModelRunnerOutput:
        self.model.update(scheduled)
        connector, metadata = self.connector, scheduled.kv_connector_metadata
        if hasattr(connector, "handle_preemptions"):  # since 0.14
            connector.handle_preemptions(metadata)
        connector.bind_connector_metadata(metadata)
        first = self.start_first or getattr(scheduled, "has_sync_kv_loads", True)  # before 0.29 always first
        if first:
            connector.start_load_kv(None)
        sampled = self.model.forward(scheduled) if scheduled.total_num_scheduled_tokens else {}
        if sampled:
            self.during_forward()
            for layer, tensor in self.model.kv.items():
                connector.wait_for_layer_load(layer)
                connector.save_kv_layer(layer, tensor, None)
        if not first:
            connector.start_load_kv(None)
        connector.wait_for_save()
        output = KVConnectorOutput(
            **self._transfers(scheduled.finished_req_ids),
            invalid_block_ids=connector.get_block_ids_with_load_errors(),
            kv_connector_stats=connector.get_kv_connector_stats(),
            kv_cache_events=connector.get_kv_connector_kv_cache_events(),
        )
        if hasattr(output, "kv_connector_worker_meta"):
            output.kv_connector_worker_meta = connector.build_connector_worker_meta()
        connector.clear_connector_metadata()
        if not sampled and output.is_empty():
            output = None  # as KVConnectorModelRunnerMixin.kv_connector_no_forward
        return ModelRunnerOutput(
            req_ids=list(sampled),
            req_id_to_index={request: index for index, request in enumerate(sampled)},
            sampled_token_ids=list(sampled.values()),
            logprobs=None,  # these three had no defaults before 0.14
            prompt_logprobs_dict={},
            pooler_output=[],
            kv_connector_output=pickle.loads(pickle.dumps(output)),
        )

    def _transfers(self, finished: set[str]) -> dict[str, Any]:
        """From 0.30 on by name, and with those that failed."""
        if "failed_recving" not in KVConnectorOutput.__dataclass_fields__:
            sending, recving = self.connector.get_finished(finished)
            return {"finished_sending": sending or None, "finished_recving": recving or None}
        done = self.connector.get_transfer_results(finished)
        return {
            "finished_sending": done.finished_sending or None,
            "finished_recving": done.finished_recving or None,
            "failed_recving": done.failed_recving,
        }
