#!/usr/bin/env bash
# `npm run chaos -- [--seconds N] [--seed N] [--engine threads|aio|both] …`: main.py says what can be asked for. --plants: every planted
# fault is looked for, one after the other, in about ten minutes.
#
# In a mount and a process namespace of its own: whatever ends this, however, ends every process in it, and with them every mount. What
# it writes lies in memory that goes with them; only the logs of a run that went wrong are copied out.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C.UTF-8

[[ " $* " != *" --help "* && " $* " != *" -h "* ]] || exec python3 -c 'import ast; print(ast.get_docstring(ast.parse(open("test/chaos/main.py").read())))'
if [ -z "${KVLANE_CHAOS_BUILT:-}" ]; then
  bash test/setup.sh --tools
  npm run --silent build </dev/null >&2
fi
bash test/chaos/build.sh
if [[ " $* " == *" --plants "* ]]; then
  KVLANE_CHAOS_ALL=1 exec .venv/bin/python -m pytest -W error --rootdir test/chaos -c test/chaos/pyproject.toml test/chaos
fi
if reason=$(KVLANE_LAB_ANY_NAMESPACE=1 python3 test/stall/stall.py why-not); then :; else
  echo "chaos: no mount can be made to hang here: $reason" >&2
  exit 2
fi
export KVLANE_LAB_ANY_NAMESPACE=1 KVLANE_CHAOS_KEPT="${TMPDIR:-/tmp}"
# The shell in between is process 1 of the namespace: it reaps what killed clients and sidecars leave behind.
exec setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
  bash -c 'mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/chaos && export TMPDIR=/run/chaos && "$@"; exit $?' chaos .venv/bin/python test/chaos/main.py "$@"
