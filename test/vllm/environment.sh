# What vLLM is told by its environment wherever it runs in these tests: source it. One thread, little memory, nothing asked of any network,
# its caches in the venv, and one hash seed, without which no block hash outlives its process.
kvlane_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export KVLANE_VLLM_PYTHON=$kvlane_root/.venv-vllm/bin/python
export KVLANE_VLLM_MODEL=$kvlane_root/.venv-vllm/model
export VLLM_CACHE_ROOT=$kvlane_root/.venv-vllm/cache VLLM_CONFIG_ROOT=$kvlane_root/.venv-vllm/config
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1
export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export PYTHONHASHSEED=0
unset kvlane_root
