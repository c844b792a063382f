#!/usr/bin/env bash
# `npm run demo`: sets up what is missing, then shows the whole thing on a file system that really hangs. Under a minute.
# As root in a private mount namespace: the stuck mount is seen by the demo only, and is gone with it.
set -euo pipefail
cd "$(dirname "$0")/../.."
bash test/setup.sh --runtime
python3 test/stall/stall.py build
export PYTHONPATH=clients/python/src:clients/python/tests
if [ "$(id -u)" = 0 ] && unshare --mount --propagation private true 2>/dev/null; then
  exec env KVLANE_LAB_ANY_NAMESPACE=1 unshare --mount --propagation private python3 test/demo/demo.py "$@"
fi
exec python3 test/demo/demo.py "$@"
