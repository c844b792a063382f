#!/usr/bin/env bash
# The wheel, as its user meets it: built and installed where there is no Node, in a folder with spaces in its name, and used where nothing
# can be written. Also `npm test -- wheel`.
#
#   test/packaging.sh            builds from this checkout, as it is
#   test/packaging.sh --clean    builds from a fresh copy of its files: npm ci and the whole compilation, some minutes
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD

if [ "$(id -u)" = 0 ] && [ -z "${KVLANE_LAB_ANY_NAMESPACE:-}" ] && unshare --mount --propagation private true 2>/dev/null; then
  export KVLANE_LAB_ANY_NAMESPACE=1
  exec unshare --mount --propagation private bash test/packaging.sh "$@"
fi

work=$(mktemp -d -t "kvlane wheel XXXXXX")
package=
leave() {
  if [ -n "$package" ]; then
    umount "$package" 2>/dev/null || umount -l "$package" 2>/dev/null || chmod -R u+w "$package"
  fi
  rm -rf "$work"
}
trap leave EXIT
said=$SECONDS
say() {
  echo "packaging: $* ($((SECONDS - said)) s)"
  said=$SECONDS
}
fail() { echo "packaging: $*" >&2; exit 1; }

if [ "${1:-}" = --clean ]; then
  mkdir "$work/checkout"
  git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/checkout"
  checkout=$work/checkout
fi

# Every command of this machine but node's, npm's, and what would be a fallback for them.
mkdir "$work/bin"
IFS=: read -ra folders <<<"$PATH"
for folder in "${folders[@]}"; do ln -s "$folder"/* "$work/bin/" 2>/dev/null || true; done # the first of a name stays
(cd "$work/bin" && rm -f node nodejs npm npx corepack yarn pnpm)
python=$(python3 -c 'import sys; print(sys.executable)') # a version manager's shim does not work by another path
"$python" -m venv "$work/venv"
export PATH="$work/bin"
! command -v node >/dev/null || fail "node is still on PATH: $(command -v node)"
unset KVLANE_NODE KVLANE_SIDECAR KVLANE_NATIVE NODE_PATH NODE_OPTIONS PYTHONPATH
pip=("$work/venv/bin/python" -m pip --disable-pip-version-check --quiet)
say "a virtual environment and a PATH without node"

"${pip[@]}" wheel --no-deps -w "$work/wheels" "$checkout/clients/python"
wheels=("$work/wheels"/*)
[ ${#wheels[@]} = 1 ] || fail "wanted one wheel, got: ${wheels[*]}"
say "built ${wheels[0]##*/}, $(($(stat -c %s "${wheels[0]}") / 1024)) KiB"
"$work/venv/bin/python" -I "$PWD/test/packaging_check.py" wheel "${wheels[0]}" "$PWD"

"${pip[@]}" install "${wheels[0]}"
package=$(cd / && "$work/venv/bin/python" -I -c 'import kvlane, pathlib; print(pathlib.Path(kvlane.__file__).parents[1])')
case $package in "$work/venv"/*) ;; *) fail "kvlane was imported from $package" ;; esac
say "installed with its dependencies, $(du -sm "$package" | cut -f 1) MiB"

if mount --bind "$package" "$package" 2>/dev/null && mount -o remount,bind,ro "$package" 2>/dev/null; then
  ! touch "$package/x" 2>/dev/null || fail "$package can be written to"
  how="mounted read-only"
else
  chmod -R a-w "$package"
  how="without permission to write"
fi
listing() { (cd "$package" && find . -printf '%p %s %T@ %C@\n' | sort); }
listing >"$work/before"
mkdir "$work/empty"
cd "$work"
env -i PATH="$work/empty" HOME="$work" "$work/venv/bin/python" -I "$checkout/test/packaging_check.py" use "$work/a mount" "$work/venv/bin/kvlane"
listing >"$work/after"
cmp "$work/before" "$work/after" || fail "something in $package has changed by being used"
say "used, $how"
