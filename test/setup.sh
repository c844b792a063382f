#!/usr/bin/env bash
# Makes this checkout ready: Debian packages (as root), node_modules, the Python tools, the native core, the TypeScript, the stall lab.
#
#   test/setup.sh             everything that tests and development need
#   test/setup.sh --runtime   what running needs: no Python tools (the client has no dependencies: PYTHONPATH=clients/python/src)
#   test/setup.sh --tools     packages, node_modules and Python tools, but nothing is built
#   test/setup.sh --bench     as --tools, and what `npm run bench` measures beside us
#
# Quick when nothing is to do. Takes from the machine's Debian, npm and Python registries, and from nowhere else.
set -euo pipefail
cd "$(dirname "$0")/.."

runtime=0 build=1 bench=0
for option in "$@"; do
  case $option in
    --runtime) runtime=1 ;;
    --tools) build=0 ;;
    --bench) build=0 bench=1 ;;
    *) echo "setup: want --runtime, --tools or --bench, or nothing, got $option" >&2; exit 2 ;;
  esac
done

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
stamp_of() { cat "$@" | sha256sum | cut -c1-32; }

# ---- Debian packages: what is missing, by what is looked for ----

missing=()
need() { missing+=("$1"); }
header() { echo "#include <$1>" | g++ -E -x c++ - >/dev/null 2>&1; }
find_missing() {
  missing=()
  have g++ || need g++
  have make || need make
  have python3 || need python3
  if have g++; then header xxhash.h || need libxxhash-dev; else [ -e /usr/include/xxhash.h ] || need libxxhash-dev; fi
  have unshare || need util-linux
  PATH=$PATH:/usr/sbin:/sbin have mkfs.ext4 || need e2fsprogs
  [ $bench = 0 ] || have fio || need fio
  [ $bench = 0 ] || PATH=$PATH:/usr/sbin:/sbin have losetup || need mount
  if [ $runtime = 0 ] && have python3; then python3 -c 'import venv, ensurepip' 2>/dev/null || need python3-venv; fi
  if [ $runtime = 0 ] && ! have python3; then need python3-venv; fi
}

find_missing
if [ ${#missing[@]} -gt 0 ]; then
  command="apt-get install -y --no-install-recommends ${missing[*]}"
  [ "$(id -u)" = 0 ] || fail "these Debian packages are missing: ${missing[*]}. As root: apt-get update && $command"
  have apt-get || fail "missing: ${missing[*]} (Debian's names), and there is no apt-get here to install them"
  say "apt-get update"
  apt-get update -qq >&2
  say "$command"
  DEBIAN_FRONTEND=noninteractive $command </dev/null >&2
  find_missing
  [ ${#missing[@]} = 0 ] || fail "still missing after the installation: ${missing[*]}"
fi

have node || fail "node is not installed; kvlane needs Node 20.19 or later"
node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
  fail "kvlane needs Node 20.19 or later, this is $(node --version)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "kvlane needs Python 3.10 or later, this is $(python3 --version)"

# ---- node_modules, by the lock file ----

node_stamp=$(stamp_of package-lock.json <(node --version))
if [ "$(cat node_modules/.kvlane-stamp 2>/dev/null)" != "$node_stamp" ]; then
  if ! [ -d node_modules ] || ! npm ls --all >/dev/null 2>&1; then
    say "npm ci"
    npm ci --no-audit --no-fund </dev/null >&2
  fi
  echo "$node_stamp" >node_modules/.kvlane-stamp
fi

# ---- the Python tools, in .venv ----

if [ $runtime = 0 ]; then
  python_stamp=$(stamp_of clients/python/pyproject.toml <(python3 --version) <(pwd))
  if [ "$(cat .venv/.kvlane-stamp 2>/dev/null)" != "$python_stamp" ]; then
    say "python3 -m venv .venv && pip install -e clients/python[dev]"
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e 'clients/python[dev]' </dev/null >&2
    echo "$python_stamp" >.venv/.kvlane-stamp
  fi
fi

# ---- kernel modules of the stall lab, where they are modules and may be loaded ----

if [ "$(id -u)" = 0 ] && have modprobe; then
  [ -e /dev/fuse ] || modprobe fuse 2>/dev/null || true
  [ -e /dev/loop-control ] || modprobe loop 2>/dev/null || true
fi

# ---- builds: each decides itself what is out of date ----

if [ $build = 1 ]; then
  npm run --silent build:native </dev/null >&2
  npm run --silent build:ts </dev/null >&2
  python3 test/stall/stall.py build
fi
