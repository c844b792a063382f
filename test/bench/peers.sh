#!/usr/bin/env bash
# .venv-bench: the peers, by pip, and what draws the plots. Without their dependencies: NIXL's POSIX plugin wants numpy only, and
# LMCache, beside three small packages, torch, which is 0.9 GB: it is borrowed from .venv-vllm, which a full run has made here.
#
#   test/bench/peers.sh           what CI's short form takes: half a minute, 0.5 GB on disk
#   test/bench/peers.sh --torch   and .venv-vllm, by test/vllm/setup.sh: two minutes and 2.3 GB more
#
# What does not install is said, and its error is kept in .venv-bench/failed/ for the results; it stops nothing, and is tried again next time.
set -uo pipefail
cd "$(dirname "$0")/../.."
venv=.venv-bench attempt_s=300
without=(nixl-cu12==1.5.1 lmcache==0.5.6 sortedcontainers==2.4.0 aiofile==3.12.3 caio==0.12.10) whole=(numpy==2.2.6 matplotlib==3.10.7)

install() { # pip's options and a package
  local package=${*: -1} log
  log=$venv/failed/${package%%=*}.log
  [ ! -e "$venv/done/$package" ] || return 0
  echo "bench: pip install $*" >&2
  if timeout -k 10 $attempt_s $venv/bin/python -m pip install --quiet --disable-pip-version-check "$@" </dev/null >"$log" 2>&1; then
    touch "$venv/done/$package"
    rm -f "$log"
    return 0
  fi
  local status=$?
  [ $status != 124 ] || echo "pip took longer than $attempt_s s" >>"$log"
  grep -v '^WARNING: Retrying' "$log" | tail -3 >"$log.short" && mv "$log.short" "$log"
  echo "bench: $package did not install: $(tail -1 "$log")" >&2
}

stamp=$(cat <(python3 --version) <(pwd) | sha256sum | cut -c1-32)
if [ "$(cat $venv/.kvlane-stamp 2>/dev/null)" != "$stamp" ]; then
  rm -rf $venv
  python3 -m venv $venv || { echo "bench: no $venv: no peers, no page" >&2; exit 0; }
  echo "$stamp" >$venv/.kvlane-stamp
fi
mkdir -p $venv/done $venv/failed
for package in "${whole[@]}"; do install "$package"; done
for package in "${without[@]}"; do install --no-deps "$package"; done

if [ "${1:-}" = --torch ] && [ -z "${KVLANE_BENCH_VLLM:-}" ]; then
  bash test/vllm/setup.sh >&2 || echo "bench: no .venv-vllm, so no torch: LMCache will be listed as failed" >&2
fi
exit 0
