#!/usr/bin/env bash
# .venv-bench: the peers, by pip, and what draws the plots. Without their dependencies: NIXL's POSIX plugin wants numpy only, and
# LMCache, beside three small packages, torch, which is 0.9 GB: it is borrowed from .venv-vllm, if test/vllm/setup.sh has made that.
# What does not install is said, and listed in the results; it stops nothing.
set -uo pipefail
cd "$(dirname "$0")/../.."
venv=.venv-bench attempt_s=300
without=(nixl-cu12==1.5.1 lmcache==0.5.6 sortedcontainers==2.4.0 aiofile==3.12.3 caio==0.12.10) whole=(numpy==2.2.6 matplotlib==3.10.7)

stamp=$(cat test/bench/peers.sh <(python3 --version) <(pwd) | sha256sum | cut -c1-32)
[ "$(cat $venv/.kvlane-stamp 2>/dev/null)" = "$stamp" ] && exit 0
echo "bench: $venv with ${without[*]} ${whole[*]}" >&2
rm -rf $venv
python3 -m venv $venv || exit 0
pip=(timeout -k 10 $attempt_s $venv/bin/python -m pip install --quiet --disable-pip-version-check)
for package in "${whole[@]}"; do
  "${pip[@]}" "$package" </dev/null >$venv/"${package%%=*}".log 2>&1 || tail -1 $venv/"${package%%=*}".log >&2
done
for package in "${without[@]}"; do
  "${pip[@]}" --no-deps "$package" </dev/null >$venv/"${package%%=*}".log 2>&1 || tail -1 $venv/"${package%%=*}".log >&2
done
echo "$stamp" >$venv/.kvlane-stamp
