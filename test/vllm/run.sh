#!/usr/bin/env bash
# `npm run test:vllm`: everything that needs a real vLLM. Sets it up, goes on after a failure; the last line is the sum.
#
#   npm run test:vllm                        all of the parts gpu scheduler engine, then the experiment in its short form
#   npm run test:vllm -- scheduler           only these parts, out of: gpu scheduler engine experiment versions
#   npm run test:vllm -- experiment --full   the experiment as the README's table has it, about 20 minutes
#   KVLANE_NO_SKIP=1 npm run test:vllm       a skipped test is a failure, unless it is one that wants CUDA (CI)
#
# As root everything runs in a private mount namespace: a stuck mount is seen by these tests only, and is gone with them.
set -uo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C.UTF-8

usual_parts=(gpu scheduler engine experiment)
all_parts=("${usual_parts[@]}" versions)
parts=() form=--short
for word in "$@"; do
  case $word in
    --full | --short) form=$word ;;
    *)
      [[ " ${all_parts[*]} " == *" $word "* ]] || { echo "npm run test:vllm: want parts out of: ${all_parts[*]}, or --full; got $word" >&2; exit 2; }
      parts+=("$word")
      ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=("${usual_parts[@]}")
wanted() { [[ " ${parts[*]} " == *" $1 "* ]]; }

if [ "$(id -u)" = 0 ] && [ -z "${KVLANE_LAB_ANY_NAMESPACE:-}" ] && unshare --mount --propagation private true 2>/dev/null; then
  export KVLANE_LAB_ANY_NAMESPACE=1
  exec unshare --mount --propagation private bash test/vllm/run.sh "$@"
fi

. test/parts.sh

tests() { # part seconds_max: a folder of tests, under vLLM's own Python
  local report=$reports/vllm-$1.xml
  pytest_suite "vLLM: $1" "$2" "$report" "$KVLANE_VLLM_PYTHON" -c test/vllm/pytest.ini --rootdir test/vllm "test/vllm/$1"
}

check "setup" 1800 bash test/setup.sh || finish
check "setup of vLLM" 2400 bash test/vllm/setup.sh || finish
. test/vllm/environment.sh
wanted gpu && tests gpu 600
wanted scheduler && tests scheduler 900
wanted engine && tests engine 1500 # eleven engines: five minutes on two idle cores
wanted versions && closing_line "vLLM: versions" 900 "^FAILED: " bash test/vllm/versions.sh
wanted experiment && closing_line "vLLM: experiment" 2400 "^ +FAIL +" bash test/vllm/experiment/run.sh "$form"

finish
