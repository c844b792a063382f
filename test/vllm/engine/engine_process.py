"""One engine in a process of its own: an LLM of vLLM that does what it is told on stdin, a line of JSON each, and answers on the descriptor
that its first argument names (stdout belongs to vLLM's log). Started by engines.py; "restart" in these tests is another of these processes.

    {"do": "generate", "prompts": [[5, 9, …]], "tokens": 16}   → {"tokens": [[…]], "seconds": 0.3, "cached": [64]}
    {"do": "metrics"}                                          → {"vllm:kvlane_hit_tokens{}": 640, …}
    {"do": "reset", "store": false}                            → {"reset": true}
    {"do": "exit"}                                             → {"left": true}, after the engine's own shutdown
"""
import json
import os
import sys
import time
from typing import Any

from vllm import LLM, SamplingParams
from vllm.v1.metrics.reader import Counter, Gauge, Histogram


def series(name: str, labels: dict[str, str]) -> str:
    ours = {label: value for label, value in labels.items() if label not in ("model_name", "engine")}
    return name + "{" + ",".join(f"{label}={value}" for label, value in sorted(ours.items())) + "}"


class Engine:
    def __init__(self, options: dict[str, Any]) -> None:
        self.llm = LLM(**options)

    def generate(self, prompts: list[list[int]], tokens: int, skip_cache: bool = False) -> dict[str, Any]:
        how = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, skip_reading_prefix_cache=skip_cache or None)
        begun = time.monotonic()
        outputs = self.llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], how, use_tqdm=False)
        return {
            "tokens": [list(output.outputs[0].token_ids) for output in outputs],
            "cached": [output.num_cached_tokens for output in outputs],
            "seconds": time.monotonic() - begun,
        }

    def metrics(self) -> dict[str, float]:
        # Numbers travel with the steps of the engine: a few more of those, too short to be stored or found, bring the latest.
        for _ in range(3):
            self.generate([[7, 8, 9]], 2)
        found: dict[str, float] = {}
        for metric in self.llm.get_metrics():
            if isinstance(metric, Counter | Gauge):
                found[series(metric.name, metric.labels)] = metric.value
            elif isinstance(metric, Histogram):
                found[series(metric.name + "_count", metric.labels)] = metric.count
        return found

    def reset(self, store: bool) -> dict[str, Any]:
        return {"reset": self.llm.reset_prefix_cache(reset_connector=store)}

    def exit(self) -> dict[str, Any]:
        self.llm.llm_engine.engine_core.shutdown()
        return {"left": True}


def main() -> None:
    answers = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")

    def answer(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=answers, flush=True)

    begun = time.monotonic()
    engine = Engine(json.loads(sys.stdin.readline()))
    answer({"ready_s": time.monotonic() - begun})
    for line in sys.stdin:
        order = json.loads(line)
        do = order.pop("do")
        answer(getattr(engine, do)(**order))
        if do == "exit":
            os._exit(0)  # vLLM has ended; the interpreter would tidy up for another 3 s, or 15 s on a busy machine


if __name__ == "__main__":
    main()
