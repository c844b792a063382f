#!/usr/bin/env bash
# `npm test`: sets up what is missing, then runs every test of every language. Goes on after a failure; the last line is the sum.
#
#   npm test                        everything
#   npm test -- core unit           only these parts, out of: core arm64 unit sim process security browser versions python wheel fuzz crash scale stall mounts chaos bench
#   KVLANE_NO_SKIP=1 npm test       a skipped test is a failure (CI)
#
# As root everything runs in a private mount namespace: a stuck mount is seen by these tests only, and is gone with them.
set -uo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

all_parts=(core arm64 unit sim process security browser versions python wheel fuzz crash scale stall mounts chaos bench)
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
  suite "vitest: $name" "$bound" "$report" env KVLANE_FAILURES="$sum/failed" KVLANE_SECOND="$sum/second" npx --no-install vitest run "${projects[@]}" \
    --reporter=default --reporter=json --outputFile.json="$report" --reporter=./test/support/failures_reporter.ts
}

# ---- setup: without it nothing else makes sense ----

check "setup" 1800 bash test/setup.sh --tools || finish
check "protocol is generated" 60 npm run --silent protocol:check
wanted core && { core_suite plain core_test plain; core_suite TSan core_test_tsan tsan; core_suite ASan+UBSan core_test_asan asan; }
wanted arm64 && closing_line arm64 600 "^FAILED: " bash test/arm64/run.sh --short # most of it compiles the core once more
if wanted unit || wanted process || wanted security || wanted browser || wanted versions || wanted python || wanted crash || wanted scale || wanted stall || wanted mounts || wanted chaos; then
  check "native builds" 900 npm run --silent build:native
  check "TypeScript compiles (tsc)" 300 npm run --silent build:ts
  check "stall lab builds" 120 python3 test/stall/stall.py build
fi
wanted unit && vitest unit 600 unit
wanted sim && vitest sim 600 sim # on a clock of its own: no load of the machine changes what it finds
wanted process && vitest process 1200 golden process
wanted security && vitest security 300 security # a page of threats, each with its test; what is not in other parts already
wanted browser && check "browser is there" 600 bash test/browser/install.sh && vitest browser 300 browser # seconds; a minute more where the browser must be fetched
wanted versions && closing_line "versions" 600 "^FAILED: " bash test/versions/run.sh --short
if wanted python; then
  cd clients/python
  check "mypy --strict" 300 ../../.venv/bin/python -m mypy --strict
  check "ruff" 60 ../../.venv/bin/python -m ruff check .
  cd ../..
  pytest_suite "pytest" 1800 "$reports/pytest.xml" .venv/bin/python -W error --rootdir clients/python -c clients/python/pyproject.toml clients/python/tests
fi
wanted wheel && check "wheel" 600 bash test/packaging.sh # half a minute; much longer where node_modules or the registry is slow
wanted fuzz && closing_line fuzz 600 "^FAILED: " npm run --silent fuzz    # half a minute of fuzzing; and clang, the first time
if wanted crash; then
  cd test/crash
  check "mypy --strict of the crash tests" 300 ../../.venv/bin/python -m mypy .
  check "ruff of the crash tests" 60 ../../.venv/bin/python -m ruff check .
  cd ../..
  closing_line crash 600 "^FAILED: " npm run --silent crash # under a minute
fi
wanted scale && vitest scale 600 scale
wanted stall && vitest stall 2400 stall
if wanted mounts; then
  cd test/mounts
  check "mypy --strict of the mounts" 300 ../../.venv/bin/python -m mypy .
  check "ruff of the mounts" 60 ../../.venv/bin/python -m ruff check .
  cd ../..
  closing_line mounts 600 '^FAILED: ' npm run --silent mounts # two minutes, and what it installs
fi
if wanted chaos; then # the model and the planted faults; then the soak itself
  cd test/chaos
  check "mypy --strict of the soak" 300 ../../.venv/bin/python -m mypy .
  check "ruff of the soak" 60 ../../.venv/bin/python -m ruff check .
  cd ../..
  suite "pytest of the soak" 300 "$reports/chaos.xml" .venv/bin/python -m pytest -W error --rootdir test/chaos -c test/chaos/pyproject.toml --junitxml="$reports/chaos.xml" test/chaos
  if reason=$(python3 test/stall/stall.py why-not); then
    check "chaos soak, 60 s" 240 npm run --silent chaos -- --seconds 60
  else
    add "chaos soak, 60 s" 0 0 0 1
    detail "skipped: chaos soak: no stall lab: $reason"
  fi
fi
if wanted bench; then # its own tests; then the short form, judged only by that it ran
  cd test/bench
  check "mypy --strict of the bench" 300 ../../.venv/bin/python -m mypy .
  check "ruff of the bench" 60 ../../.venv/bin/python -m ruff check .
  cd ../..
  suite "pytest of the bench" 300 "$reports/bench.xml" .venv/bin/python -m pytest -W error --rootdir test/bench -c test/bench/pyproject.toml --junitxml="$reports/bench.xml" test/bench
  check "bench, short form" 900 npm run --silent bench -- --short # under 5 minutes, and what it installs
fi

finish
