#!/usr/bin/env bash
# `npm test`: sets up what is missing, then runs every test of every language. Goes on after a failure; the last line is the sum.
#
#   npm test                        everything
#   npm test -- core unit           only these parts, out of: core unit process python wheel stall bench
#   KVLANE_NO_SKIP=1 npm test       a skipped test is a failure (CI)
#
# As root everything runs in a private mount namespace: a stuck mount is seen by these tests only, and is gone with them.
set -uo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

all_parts=(core unit process python wheel stall bench)
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=("${all_parts[@]}")
for part in "${parts[@]}"; do
  [[ " ${all_parts[*]} " == *" $part "* ]] || { echo "npm test: want parts out of: ${all_parts[*]}; got $part" >&2; exit 2; }
done
wanted() { [[ " ${parts[*]} " == *" $1 "* ]]; }

if [ "$(id -u)" = 0 ] && [ -z "${KVLANE_LAB_ANY_NAMESPACE:-}" ] && unshare --mount --propagation private true 2>/dev/null; then
  export KVLANE_LAB_ANY_NAMESPACE=1
  exec unshare --mount --propagation private bash test/run.sh "$@"
fi

. test/parts.sh

core_suite() { # variant target folder
  local log
  log=$(log_of "core, $1")
  if ! make --no-print-directory -j2 -C native "$2" </dev/null >"$log" 2>&1; then
    title "core, $1"
    tail -40 "$log"
    detail "failed: native/core does not compile ($2)"
    tell "$log" "native/core does not compile ($2)"
    add "core, $1" $((SECONDS - started)) 0 1 0
    return
  fi
  closing_line "core, $1" 600 "^FAILED: " "native/build/$3/core_test"
}

vitest() { # name seconds_max project…
  local name=$1 bound=$2 report=$reports/$1.json projects=()
  shift 2
  for p in "$@"; do projects+=(--project "$p"); done
  suite "vitest: $name" "$bound" "$report" env KVLANE_FAILURES="$sum/failed" npx --no-install vitest run "${projects[@]}" \
    --reporter=default --reporter=json --outputFile.json="$report" --reporter=./test/support/failures_reporter.ts
}

# ---- setup: without it nothing else makes sense ----

check "setup" 1800 bash test/setup.sh --tools || finish
check "protocol is generated" 60 npm run --silent protocol:check
wanted core && { core_suite plain core_test plain; core_suite TSan core_test_tsan tsan; core_suite ASan+UBSan core_test_asan asan; }
if wanted unit || wanted process || wanted python || wanted stall; then
  check "native builds" 900 npm run --silent build:native
  check "TypeScript compiles (tsc)" 300 npm run --silent build:ts
  check "stall lab builds" 120 python3 test/stall/stall.py build
fi
wanted unit && vitest unit 600 unit
wanted process && vitest process 1200 golden process
if wanted python; then
  cd clients/python
  check "mypy --strict" 300 ../../.venv/bin/python -m mypy --strict
  check "ruff" 60 ../../.venv/bin/python -m ruff check .
  cd ../..
  suite "pytest" 1800 "$reports/pytest.xml" .venv/bin/python -m pytest -W error --rootdir clients/python -c clients/python/pyproject.toml --junitxml="$reports/pytest.xml" clients/python/tests
fi
wanted wheel && check "wheel" 600 bash test/packaging.sh # half a minute; much longer where node_modules or the registry is slow
wanted stall && vitest stall 2400 stall
if wanted bench; then # its own tests; then the short form, judged only by that it ran
  cd test/bench
  check "mypy --strict of the bench" 300 ../../.venv/bin/python -m mypy .
  check "ruff of the bench" 60 ../../.venv/bin/python -m ruff check .
  cd ../..
  suite "pytest of the bench" 300 "$reports/bench.xml" .venv/bin/python -m pytest -W error --rootdir test/bench -c test/bench/pyproject.toml --junitxml="$reports/bench.xml" test/bench
  check "bench, short form" 900 npm run --silent bench -- --short # under 5 minutes, and what it installs
fi

finish
