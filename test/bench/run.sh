#!/usr/bin/env bash
# `npm run bench`: sets up what is missing (fio, the build, the peers), then measures. main.py says what can be asked for.
#
# As root everything runs in a private mount namespace: its file systems are gone with it, however it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C.UTF-8

if [ "$(id -u)" = 0 ] && [ -z "${KVLANE_LAB_ANY_NAMESPACE:-}" ]; then
  export KVLANE_LAB_ANY_NAMESPACE=1
  exec unshare --mount --propagation private bash test/bench/run.sh "$@"
fi

bash test/setup.sh --bench
npm run --silent build </dev/null >&2
make --no-print-directory -s -C test/bench >&2
bash test/bench/peers.sh
# What a run that is killed would leave behind: reserved huge pages.
before=$(cat /proc/sys/vm/nr_hugepages)
trap '[ "$(cat /proc/sys/vm/nr_hugepages)" = "$before" ] || echo "$before" >/proc/sys/vm/nr_hugepages' EXIT
.venv/bin/python test/bench/main.py "$@"
