# What test/run.sh and test/vllm/run.sh share: the parts of a run, and its sum. Source it; then check, suite, closing_line …, finish.
#
# KVLANE_SUM=FOLDER     the sum is kept there and goes on in the next run that names it, so that the last run says the sum of all (.ci/run)
# KVLANE_NO_SKIP=1      a skipped test is a failure, unless its reason begins with "no CUDA"
# KVLANE_SECOND_ATTEMPT=1  (.ci/run) a test that starts processes and failed is run once more: thousands of them watch clocks on two cores that others
#                       use, too. What passes then counts as passed, but it is named, with what it said, and more than SECOND_MAX of them
#                       are a failure. By hand there is no second attempt.
SECOND_MAX=3

reports=$(mktemp -d -t kvlane-test-XXXXXX)
trap 'rm -rf "$reports"' EXIT
sum=${KVLANE_SUM:-$reports/sum}
mkdir -p "$sum/failed" "$sum/second" # a file for each failure, shown once more at the end: see failures.py; second: those that a second attempt mended
touch "$sum"/{counts,summary,details}

add() { # name seconds passed failed skipped
  echo "$3 $4 $5" >>"$sum/counts"
  printf '%-34s %5d passed %4d failed %4d skipped %6d s\n' "$1" "$3" "$4" "$5" "$2" >>"$sum/summary"
}
detail() { echo "$*" >>"$sum/details"; }
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
  { echo "$2"; tail -n 60 "$1"; } >"$sum/failed/$(basename "$1")"
}
log_of() { echo "$reports/${1//[^a-zA-Z0-9]/_}.log"; }

# One command that either succeeds or not: check NAME SECONDS_MAX COMMAND…
check() {
  local name=$1 bound=$2 status log
  log=$(log_of "$1")
  shift 2
  title "$name"
  if logged "$log" timeout -k 10 "$bound" "$@"; then
    add "$name" $((SECONDS - started)) 1 0 0
  else
    status=$?
    detail "failed: $name (exit status $status): $*"
    tell "$log" "$name (exit status $status): $*"
    add "$name" $((SECONDS - started)) 0 1 0
    return 1
  fi
}

# A test runner that writes a report: suite NAME SECONDS_MAX REPORT COMMAND… It has its own second attempt, or is pytest (pytest_suite).
suite() {
  local name=$1 bound=$2 report=$3 status counts p f s log=$3.log told
  shift 3
  title "$name"
  logged "$log" timeout -k 10 "$bound" "$@"
  status=$?
  told=$(mktemp -d -p "$reports")
  counts=$(python3 test/count.py "$report" "$told" 2>/dev/null) || counts="0 0 0"
  read -r p f s <<<"${counts%%$'\n'*}"
  if [ "$f" -gt 0 ] && [ "$f" -le $SECOND_MAX ] && [ -n "${again[*]:-}" ] && [ -n "${KVLANE_SECOND_ATTEMPT:-}" ]; then
    title "$name: a second attempt"
    if logged "$log" timeout -k 10 "$bound" "$@" "${again[@]}"; then
      mv "$told"/* "$sum/second/"
      counts=$(grep -v '^failed: ' <<<"$counts") p=$((p + f)) f=0 status=0
    fi
  fi
  mv "$told"/* "$sum/failed/" 2>/dev/null
  while IFS= read -r line; do [ -z "$line" ] || detail "$line"; done <<<"$(tail -n +2 <<<"$counts")"
  if [ $status != 0 ] && [ "$f" = 0 ]; then # crashed, ran out of time, or found no tests
    detail "failed: $name ended with exit status $status and no failed test"
    tell "$log" "$name ended with exit status $status and no failed test"
    f=1
  elif [ $((p + f)) = 0 ]; then
    detail "failed: $name ran no test"
    f=1
  fi
  add "$name" $((SECONDS - started)) "$p" "$f" "$s"
}

# pytest: pytest_suite NAME SECONDS_MAX REPORT PYTHON ARGUMENT… What failed is what it runs the second time, in a process of its own.
pytest_suite() {
  local name=$1 bound=$2 report=$3 python=$4 again=(--last-failed --last-failed-no-failures=none --junitxml="$3.second.xml")
  shift 4
  suite "$name" "$bound" "$report" "$python" -m pytest -o cache_dir="$report.cache" --junitxml="$report" "$@"
}

# A program whose last such line says "N passed, N failed[, N skipped]", each failure in a line of its own: closing_line NAME SECONDS_MAX
# PATTERN COMMAND…; PATTERN finds the failures' lines. Only the line counts: a sanitizer may speak after it.
closing_line() {
  local name=$1 bound=$2 pattern=$3 status last p=0 f=0 s=0 log
  log=$(log_of "$1")
  shift 3
  title "$name"
  logged "$log" timeout -k 10 "$bound" "$@"
  status=$?
  last=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -1)
  [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)? ]] && p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[4]:-0}
  if [ "$status" != 0 ] && [ "$f" = 0 ] || [ $((p + f + s)) = 0 ]; then
    detail "failed: $name ended with exit status $status"
    f=$((f + 1))
  fi
  [ "$f" = 0 ] || tell "$log" "$name, exit status $status"
  while IFS= read -r line; do detail "failed: $name: $line"; done < <(sed -nE "s/$pattern//p" "$log")
  [ "$s" = 0 ] || detail "skipped: $name: $s; it says why above"
  add "$name" $((SECONDS - started)) "$p" "$f" "$s"
}

# The sum, and the end of the run.
finish() {
  local passed=0 failed=0 skipped=0 second forbidden p f s status=0
  while read -r p f s; do passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s)); done <"$sum/counts"
  [ $failed = 0 ] || status=1
  python3 test/failures.py "$sum/second" "what passed only at its second attempt"
  python3 test/failures.py "$sum/failed" "what failed, once more"
  printf '\n──── sum ────\n'
  cat "$sum/summary" "$sum/details"
  forbidden=$((skipped - $(grep -cE '^skipped: .*: no CUDA' "$sum/details")))
  if [ "$forbidden" -gt 0 ] && [ -n "${KVLANE_NO_SKIP:-}" ]; then
    echo "KVLANE_NO_SKIP: $forbidden skipped, which counts as a failure here"
    status=1
  fi
  second=$(find "$sum/second" -type f | wc -l)
  [ "$second" = 0 ] || head -qn 1 "$sum/second"/* | sed 's/^/passed only at its second attempt: /'
  if [ "$second" -gt $SECOND_MAX ]; then
    echo "$second tests wanted a second attempt, more than $SECOND_MAX, which counts as a failure"
    status=1
  fi
  echo "$passed passed, $failed failed, $skipped skipped"
  exit $status
}
