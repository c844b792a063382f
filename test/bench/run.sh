#!/usr/bin/env bash
# `npm run bench`: sets up what is missing (fio, the build, the peers), then measures. main.py says what can be asked for.
#
# As root, in a private mount namespace: its file systems are gone with it, however it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C.UTF-8

[[ " $* " != *" --help "* && " $* " != *" -h "* ]] || exec python3 -c 'import ast, sys; print(ast.get_docstring(ast.parse(open("test/bench/main.py").read())))'
if [ "$(id -u)" != 0 ]; then
  echo "bench: it mounts file systems of its own and reserves huge pages, so it wants root" >&2
  exit 2
fi
if [ -z "${KVLANE_LAB_ANY_NAMESPACE:-}" ]; then
  export KVLANE_LAB_ANY_NAMESPACE=1
  exec unshare --mount --propagation private bash test/bench/run.sh "$@"
fi

torch=
[[ " $* " != *" --full "* ]] || torch=--torch
bash test/setup.sh --bench
npm run --silent build </dev/null >&2
make --no-print-directory -s -C test/bench >&2
python3 test/stall/stall.py build >&2
bash test/bench/peers.sh $torch
# What a run that is killed would leave behind: reserved huge pages.
before=$(cat /proc/sys/vm/nr_hugepages)
trap '[ "$(cat /proc/sys/vm/nr_hugepages)" = "$before" ] || echo "$before" >/proc/sys/vm/nr_hugepages' EXIT
# In the background, because a shell that waits for a child in the foreground hands on no signal.
.venv/bin/python test/bench/main.py "$@" </dev/null &
measuring=$!
trap 'kill -TERM $measuring 2>/dev/null' TERM HUP
trap 'kill -INT $measuring 2>/dev/null' INT
status=0
wait $measuring || status=$?
while kill -0 $measuring 2>/dev/null; do status=0; wait $measuring || status=$?; done # a signal ends the first wait, not the child
exit $status
