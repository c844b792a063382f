#!/usr/bin/env bash
# Makes .venv-vllm: a real vLLM for CPU, pytest, this checkout's kvlane, and .venv-vllm/model. About 2.3 GB on disk, 0.9 GB from the Python
# registry, and nothing from elsewhere. Quick when nothing is to do. test/vllm/environment.sh says how to run with it.
#
#   test/vllm/setup.sh
#
# Wants Python 3.11 to 3.13 with venv, gcc and binutils, all of which test/setup.sh has brought on Debian; x86-64 only.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=test/vllm venv=.venv-vllm

uv_version=0.13.9 # the installer: four times as fast as pip, and it takes an override for torch
attempts=3        # of each installation: a registry that answers badly once must not cost a CI run
attempt_s=600     # each; a whole one takes under two minutes

say() { echo "setup of vLLM: $*" >&2; }
fail() { say "$*"; exit 1; }

[ "$(uname -sm)" = "Linux x86_64" ] || fail "there are wheels for Linux on x86-64 only, this is $(uname -sm)"
for tool in gcc nm readelf; do
  command -v $tool >/dev/null || fail "no $tool here; as root: apt-get update && apt-get install -y --no-install-recommends gcc binutils"
done
python=
for candidate in python3.11 python3.12 python3.13 python3; do
  if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || fail "want a Python from 3.11 to 3.13 with venv and ensurepip (Debian: python3 python3-venv); python3 is $(python3 --version 2>&1)"

again() { # command…: bounded tries
  local try
  for ((try = 1; try <= attempts; try++)); do
    [ $try = 1 ] || { say "once more ($try of $attempts) in 5 s"; sleep 5; }
    timeout -k 10 $attempt_s "$@" </dev/null >&2 && return
  done
  fail "$attempts times without success: $*"
}

# ---- the packages, by the lock file; a venv that was not finished is thrown away ----

stamp=$(cat $here/setup.sh $here/requirements.lock $here/cuda_shells.py <("$python" --version) <(pwd) | sha256sum | cut -c1-32)
if [ "$(cat $venv/.kvlane-stamp 2>/dev/null)" != "$stamp" ]; then
  say "$venv with $(grep ^vllm $here/requirements.lock) for $("$python" --version)"
  rm -rf $venv
  "$python" -m venv $venv
  touch $venv/kvlane-vllm # the mark that cuda_shells.py looks for
  again $venv/bin/python -m pip install --quiet --disable-pip-version-check --target $venv/uv "uv==$uv_version"
  # --no-deps: the lock names everything, and what torch would bring on top is what it must not
  UV_HTTP_TIMEOUT=120 again $venv/uv/bin/uv pip install --quiet --python $venv/bin/python --no-deps --requirement $here/requirements.lock
  echo "$PWD/clients/python/src" >"$(echo $venv/lib/python3.*/site-packages)/kvlane-here.pth" # this checkout's kvlane
  $venv/bin/python $here/cuda_shells.py
  # Bytecode of what every start imports; the rest compiles itself when it is met.
  (cd $venv/lib/python3.*/site-packages && "$OLDPWD/$venv/bin/python" -m compileall -q -j 2 vllm torch transformers fastapi openai pydantic sympy numpy >/dev/null) ||
    say "some files do not compile, which is usual: they are templates"
  echo "$stamp" >$venv/.kvlane-stamp
fi

# ---- the model, and what vLLM finds out about its class, which costs the first start 26 s and is then in a cache ----

model_stamp=$(cat $here/model/make.py <(echo "$stamp") | sha256sum | cut -c1-32)
if [ "$(cat $venv/model/.kvlane-stamp 2>/dev/null)" != "$model_stamp" ]; then
  say "the model, and vLLM's first look at it"
  . $here/environment.sh
  rm -rf $venv/model
  $venv/bin/python $here/model/make.py $venv/model
  timeout -k 10 300 $venv/bin/python -c '
from vllm.config import ModelConfig
import sys
ModelConfig(sys.argv[1], dtype="float32")' $venv/model >$venv/first-look.log 2>&1 </dev/null || { tail -20 $venv/first-look.log >&2; fail "vLLM does not take the model; all of it in $venv/first-look.log"; }
  echo "$model_stamp" >$venv/model/.kvlane-stamp
fi
