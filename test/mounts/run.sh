#!/usr/bin/env bash
# `npm run mounts`: sets up what is missing, then the acceptance run on every file system that can be mounted here. main.py says what can
# be asked for.
#
# All of it runs as process 1 of a pid namespace, with mounts and a network of its own: however it ends, by SIGKILL too, the kernel takes
# servers, mounts, loop devices and network namespaces along. The machine's own network is not in it.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C.UTF-8

[[ " $* " != *" --help "* && " $* " != *" -h "* ]] || exec python3 -c 'import ast; print(ast.get_docstring(ast.parse(open("test/mounts/main.py").read())))'

skipped() { # without root there is nothing to show
  echo "SKIPPED: $*"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}

if [ -z "${KVLANE_MOUNTS_INSIDE:-}" ]; then
  [ "$(id -u)" = 0 ] || skipped "mounting file systems and making network namespaces needs root"
  (exec 3<>/dev/fuse) 2>/dev/null || skipped "/dev/fuse cannot be opened"
  unshare --mount --pid --net --fork true 2>/dev/null || skipped "no mount, pid and network namespaces may be made here"
  bash test/setup.sh --tools
  npm run --silent build </dev/null >&2
  python3 test/stall/stall.py build >&2
  bash test/mounts/setup.sh "$@"
  export KVLANE_MOUNTS_INSIDE=1 KVLANE_LAB_ANY_NAMESPACE=1
  # unshare ends with this shell, however that ends, and process 1 of the namespace with unshare. In the background, because a shell that
  # waits for a child in the foreground hands on no signal.
  setpriv --pdeathsig KILL unshare --mount --pid --net --fork --kill-child --mount-proc --propagation private bash test/mounts/run.sh "$@" </dev/null &
  inside=$!
  trap 'kill -KILL $inside 2>/dev/null' TERM HUP INT EXIT
  status=0
  wait $inside || status=$?
  trap - EXIT # whose kill would fail now, and so be the exit status
  exit $status
fi

# Where daemons keep what they know: in memory, and gone with the namespace.
mount -t tmpfs -o mode=755 tmpfs /run
for directory in /var/lib/glusterd /var/log/glusterfs /var/lib/mfs; do
  [ ! -d $directory ] || mount -t tmpfs tmpfs $directory
done
mkdir -p /run/mounts /run/sshd /run/gluster
export TMPDIR=/run/mounts PYTHONPATH=clients/python/src:test/stall PYTHONDONTWRITEBYTECODE=1
status=0
.venv/bin/python test/mounts/main.py "$@" || status=$? # not exec: orphans want a process 1 that reaps them
exit $status
