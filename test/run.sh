#!/usr/bin/env bash
# `npm test`: sets up what is missing, then runs every test of every language. Goes on after a failure; the last line is the sum.
#
#   npm test                        everything
#   npm test -- core unit           only these parts, out of: core unit process python wheel stall
#   KVLANE_NO_SKIP=1 npm test       a skipped test is a failure (CI)
#
# As root everything runs in a private mount namespace: a stuck mount is seen by these tests only, and is gone with them.
set -uo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

all_parts=(core unit process python wheel stall)
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

reports=$(mktemp -d -t kvlane-test-XXXXXX)
mkdir "$reports/failed" # a file for each failure, shown once more at the end: see failures.py
trap 'rm -rf "$reports"' EXIT
passed=0 failed=0 skipped=0
summary=() details=()

add() { # name seconds passed failed skipped
  passed=$((passed + $3)) failed=$((failed + $4)) skipped=$((skipped + $5))
  summary+=("$(printf '%-34s %5d passed %4d failed %4d skipped %6d s' "$1" "$3" "$4" "$5" "$2")")
}
title() { printf '\n──── %s ────\n' "$1"; started=$SECONDS; }

# A command whose output is seen and also kept. tee is waited for, but not forever: something it started may have the pipe still.
logged() { # log command…
  local log=$1 status copy tee
  shift
  exec {copy}> >(exec tee "$log")
  tee=$!
  "$@" </dev/null >&"$copy" 2>&1 {copy}>&-
  status=$?
  exec {copy}>&-
  timeout 5 tail --pid="$tee" -s 0.1 -f /dev/null
  return $status
}
tell() { # log title: the end of a log is what a failure says that no report tells
  { echo "$2"; tail -n 60 "$1"; } >"$reports/failed/$(basename "$1")"
}

# One command that either succeeds or not: check NAME SECONDS_MAX COMMAND…
check() {
  local name=$1 bound=$2 status log=$reports/${1//[^a-zA-Z0-9]/_}.log
  shift 2
  title "$name"
  if logged "$log" timeout -k 10 "$bound" "$@"; then
    add "$name" $((SECONDS - started)) 1 0 0
  else
    status=$?
    details+=("failed: $name (exit status $status): $*")
    tell "$log" "$name (exit status $status): $*"
    add "$name" $((SECONDS - started)) 0 1 0
    return 1
  fi
}

# A test runner that writes a report: suite NAME SECONDS_MAX REPORT COMMAND…
suite() {
  local name=$1 bound=$2 report=$3 status counts p f s log=$3.log
  shift 3
  title "$name"
  logged "$log" timeout -k 10 "$bound" "$@"
  status=$?
  counts=$(python3 test/count.py "$report" "$reports/failed" 2>/dev/null) || counts="0 0 0"
  read -r p f s <<<"${counts%%$'\n'*}"
  while IFS= read -r line; do [ -z "$line" ] || details+=("$line"); done <<<"$(tail -n +2 <<<"$counts")"
  if [ $status != 0 ] && [ "$f" = 0 ]; then # crashed, ran out of time, or found no tests
    details+=("failed: $name ended with exit status $status and no failed test")
    tell "$log" "$name ended with exit status $status and no failed test"
    f=1
  elif [ $((p + f)) = 0 ]; then
    details+=("failed: $name ran no test")
    f=1
  fi
  add "$name" $((SECONDS - started)) "$p" "$f" "$s"
}

# The core's own program says "N passed, N failed" in its last line.
core_suite() { # variant
  local log=$reports/core_$1.log status last p f
  title "core, $1"
  if ! make --no-print-directory -j2 -C native "$2" </dev/null >"$log" 2>&1; then
    tail -40 "$log"
    details+=("failed: native/core does not compile ($2)")
    tell "$log" "native/core does not compile ($2)"
    add "core, $1" $((SECONDS - started)) 0 1 0
    return
  fi
  timeout -k 10 600 "native/build/$3/core_test" </dev/null 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  last=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -1) # a sanitizer may have spoken after it
  p=0 f=0
  [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed ]] && p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]}
  if [ "$status" != 0 ] && [ "$f" = 0 ] || [ "$p" = 0 ]; then
    details+=("failed: core_test ($1) ended with exit status $status")
    f=$((f + 1))
  fi
  [ "$f" = 0 ] || tell "$log" "core ($1), exit status $status"
  while IFS= read -r line; do details+=("failed: core ($1): $line"); done < <(sed -n 's/^FAILED: //p' "$log")
  add "core, $1" $((SECONDS - started)) "$p" "$f" 0
}

vitest() { # name seconds_max project…
  local name=$1 bound=$2 report=$reports/$1.json projects=()
  shift 2
  for p in "$@"; do projects+=(--project "$p"); done
  suite "vitest: $name" "$bound" "$report" env KVLANE_FAILURES="$reports/failed" npx --no-install vitest run "${projects[@]}" \
    --reporter=default --reporter=json --outputFile.json="$report" --reporter=./test/support/failures_reporter.ts
}

# ---- setup: without it nothing else makes sense ----

if ! check "setup" 1800 bash test/setup.sh --tools; then
  python3 test/failures.py "$reports/failed"
  printf '%s\n' "${details[@]}"
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
fi
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

# ---- the sum ----

status=0
[ $failed = 0 ] || status=1
python3 test/failures.py "$reports/failed"
printf '\n──── sum ────\n'
printf '%s\n' "${summary[@]}"
[ ${#details[@]} = 0 ] || printf '%s\n' "${details[@]}"
if [ "$skipped" -gt 0 ] && [ -n "${KVLANE_NO_SKIP:-}" ]; then
  echo "KVLANE_NO_SKIP: $skipped skipped, which counts as a failure here"
  status=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
exit $status
