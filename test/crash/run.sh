#!/usr/bin/env bash
# `npm run crash`: builds the library that stands between lanes and kernel, and runs crash.py in a mount namespace of its own, with a file
# system in memory for the power cuts that is gone when the run is, however it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] && [ -e /dev/fuse ] || { echo "SKIPPED: needs root and /dev/fuse"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
[ -e dist/kvlane.cjs ] || { echo "crash: nothing is built; npm run build first" >&2; exit 1; }
export KVLANE_CRASH_MEMORY=$PWD/test/crash/build/memory
mkdir -p "$KVLANE_CRASH_MEMORY"
gcc -std=gnu17 -O1 -Wall -Wextra -Werror -shared -fPIC -o test/crash/build/seam.so test/crash/seam.c -ldl
exec unshare --mount --propagation private bash -c 'mount -t tmpfs -o size=512m,mode=0700 kvlane-crash "$KVLANE_CRASH_MEMORY" && exec python3 test/crash/crash.py "$@"' crash "$@"
