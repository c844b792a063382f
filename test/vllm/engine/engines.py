"""The test's end of engine_process.py. Every wait for an engine is bounded: one that hangs is ended and says so with the end of its log."""
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
START_S = 240  # an engine takes 10 s to 15 s to start on an idle machine
ANSWER_S = 120  # the longest thing asked takes 3 s
LEAVE_S = 20
LOG_LINES = 40

BLOCK_TOKENS = 32
CHUNK_TOKENS = 64


class EngineHung(AssertionError):
    pass


class Engine:
    def __init__(self, model: Path, log: Path, connector: dict[str, Any] | None, *, transfer: dict[str, Any], dtype: str, seed: str) -> None:
        self.log = log
        options: dict[str, Any] = {
            "model": str(model), "dtype": dtype, "enforce_eager": True, "block_size": BLOCK_TOKENS, "max_model_len": 4096,
            "max_num_batched_tokens": 4096, "max_num_seqs": 16, "disable_log_stats": False,
        }  # fmt: skip
        if connector is not None:
            options["kv_transfer_config"] = {
                "kv_connector": "KvlaneConnector", "kv_connector_module_path": "kvlane.vllm", "kv_role": "kv_both",
                "kv_connector_extra_config": connector, **transfer,
            }  # fmt: skip
        answers, theirs = os.pipe()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "engine_process.py"), str(theirs)],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, pass_fds=[theirs], start_new_session=True,
                env=os.environ | {"PYTHONHASHSEED": seed, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
            )  # fmt: skip
        os.close(theirs)
        self._answers = answers
        self._read = b""
        self._write(options)
        self.ready_s = self._answer(START_S)["ready_s"]
        if connector is not None:
            self._wait_until_up()

    # --- what it is asked ------------------------------------------------------------------------------------------

    def generate(self, *prompts: list[int], tokens: int = 16, skip_cache: bool = False) -> list[list[int]]:
        return self.ask("generate", prompts=prompts, tokens=tokens, skip_cache=skip_cache)["tokens"]

    def metrics(self) -> dict[str, float]:
        """Ours only, without the prefix: `hit_tokens`, `load_failures{code=CORRUPT}`."""
        prefix = "vllm:kvlane_"
        found = self.ask("metrics")
        return {key.removeprefix(prefix).removesuffix("{}"): value for key, value in found.items() if key.startswith(prefix)}

    def forget(self, *, store: bool = False) -> bool:
        """The engine's own prefix cache; with `store` the connector's too."""
        return self.ask("reset", store=store)["reset"]

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        self._write({"do": do, **what})
        return self._answer(ANSWER_S)

    def _wait_until_up(self) -> None:
        """The sidecars start beside the engine, and what is asked before they are there is a miss."""
        until = time.monotonic() + START_S
        while {key: value for key, value in self.metrics().items() if key.startswith("sidecar_up")} != {
            "sidecar_up{process=rank0}": 1, "sidecar_up{process=scheduler}": 1,
        }:  # fmt: skip
            assert time.monotonic() < until, self._with_log(f"the sidecars are not up after {START_S} s")

    # --- its processes ---------------------------------------------------------------------------------------------

    def sidecars(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = [int(pid) for each in children for pid in each.read_text().split()]
        return [pid for pid in pids if b"serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def kill_sidecars(self) -> int:
        pids = self.sidecars()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    def leave(self) -> None:
        """vLLM's own shutdown."""
        self.ask("exit")
        self.process.wait(LEAVE_S)
        assert self.process.returncode == 0, self._with_log(f"the engine ended with {self.process.returncode}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()  # its sidecars see that and leave
            self.process.wait(LEAVE_S)
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1

    def _write(self, what: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        self.process.stdin.flush()

    def _answer(self, bound_s: float) -> dict[str, Any]:
        until = time.monotonic() + bound_s
        while b"\n" not in self._read:
            readable, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            if not readable:
                self.process.send_signal(signal.SIGABRT)  # PYTHONFAULTHANDLER: where it hangs goes to its log
                raise EngineHung(self._with_log(f"no answer from the engine within {bound_s} s"))
            more = os.read(self._answers, 1 << 20)
            if not more:
                self.process.wait(LEAVE_S)
                raise AssertionError(self._with_log(f"the engine ended with {self.process.returncode}"))
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    def _with_log(self, what: str) -> str:
        return "\n".join([what, *self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]])
