#!/usr/bin/env bash
# `npm run scale`: the large sizes of test/scale, and their table: some minutes. `npm test -- scale` has the small ones.
#
#   npm run scale                          1,000 stuck operations, 100,000 blocks, 64 mounts, 16 sidecars, 400,000 requests, an hour of hang
#   KVLANE_SCALE_BLOCKS=1000000 npm run scale    as many blocks in the store
#
# As root, in a private mount namespace. The table goes to test/scale/build/table.md too; the last line is the sum.
set -uo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" = 0 ] && [ -z "${KVLANE_LAB_ANY_NAMESPACE:-}" ]; then
  export KVLANE_LAB_ANY_NAMESPACE=1
  exec unshare --mount --propagation private bash test/scale/run.sh "$@"
fi
bash test/setup.sh || exit 1
out=test/scale/build
mkdir -p "$out"
rm -f "$out"/{report.json,log,table.md} # a run that ends early has none, not that of the last one
KVLANE_SCALE_FULL=1 timeout -k 10 1800 npx --no-install vitest run --project scale --reporter=default --reporter=json --outputFile.json="$out/report.json" "$@" </dev/null 2>&1 | tee "$out/log"
{
  echo '| what | how many | threads | descriptors | memory, MiB | processor, ms | |'
  echo '| --- | --- | --- | --- | --- | --- | --- |'
  sed -nE 's/.*SCALE (\|.*\|)[^|]*$/\1/p' "$out/log"
} >"$out/table.md"
cat "$out/table.md"
python3 test/count.py "$out/report.json" | sed -n '1!p'
read -r passed failed skipped < <(python3 test/count.py "$out/report.json" 2>/dev/null | head -1)
echo "${passed:-0} passed, ${failed:-1} failed, ${skipped:-0} skipped"
[ "${failed:-1}" = 0 ] && [ "${passed:-0}" -gt 0 ]
