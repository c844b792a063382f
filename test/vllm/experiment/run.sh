#!/usr/bin/env bash
# What a hung mount costs a vLLM server: the experiment. run.sh [--short|--full] [--arm NAME]… [--out FILE.json] [--keep DIRECTORY]
#
# Everything runs in a mount and a process namespace of its own. Whatever ends this script, however, ends every process in it: the servers,
# and the lab with its stuck device. Needs root and /dev/fuse; says "skipped" without. Wants what test/vllm/setup.sh makes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../environment.sh"
python=$KVLANE_VLLM_PYTHON
[ -x "$python" ] || { echo "experiment: no $python; test/vllm/setup.sh makes it" >&2; exit 2; }
export LC_ALL=C.UTF-8 KVLANE_LAB_ANY_NAMESPACE=1
namespaces=(--mount --propagation private --pid --fork --kill-child --mount-proc)
if [ "$(id -u)" != 0 ] || ! unshare "${namespaces[@]}" true 2>/dev/null; then
  unset KVLANE_LAB_ANY_NAMESPACE
  exec "$python" "$here/run.py" "$@"
fi
# The shell in between is process 1 of the namespace: it reaps what servers leave behind.
exec unshare "${namespaces[@]}" bash -c '"$@"; exit $?' experiment "$python" "$here/run.py" "$@"
