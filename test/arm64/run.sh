#!/usr/bin/env bash
# `npm run arm64`: the core for arm64, by Debian's cross compiler, and its tests under user-mode emulation, with pages of 4 and of 64 KiB.
#
#   npm run arm64               both page sizes, and the addon is compiled and linked too
#   npm run arm64 -- --short    what `npm test` does: no addon; with 64 KiB only the tests whose sentences say what pages are about
#
# As root it installs what is missing (Debian's g++-aarch64-linux-gnu and qemu-user-static). What cannot be shown under emulation stands with
# its reason in left_out.txt (both) and left_out_64k.txt, and is named in the output: native AIO, hugetlb, seccomp, what lanes do to descriptor
# tables. A line there that fits no test is a failure. The last line is the sum.
set -uo pipefail
cd "$(dirname "$0")/../.."

short=0
case ${1-} in
  "") ;;
  --short) short=1 ;;
  *) echo "arm64: want --short or nothing, got $1" >&2; exit 2 ;;
esac

say() { echo "arm64: $*" >&2; }
fail() { say "$*"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }

missing=()
command -v aarch64-linux-gnu-g++ >/dev/null || missing+=(g++-aarch64-linux-gnu)
command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
if [ ${#missing[@]} -gt 0 ]; then
  [ "$(id -u)" = 0 ] || fail "these Debian packages are missing: ${missing[*]}. As root: apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  say "apt-get install ${missing[*]}"
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2 || fail "apt-get could not install ${missing[*]}"
fi

out=native/build-arm64
mkdir -p "$out/include"
for header in xxhash.h xxh3.h; do # Debian's, header only, the same for every architecture; the rest of /usr/include is this machine's
  ln -sfn "/usr/include/$header" "$out/include/$header"
done

failed=0 passed=0 skipped=0
check() { # what command…
  local what=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $what" >&2; fi
}

make_arm64() { CXXFLAGS="-isystem $PWD/$out/include" LDFLAGS="${1-}" make --no-print-directory -s -j2 -C native BUILD=build-arm64 CXX=aarch64-linux-gnu-g++ PLAIN_FLAGS="-O1 -g0" "$2"; }
emulator=$PWD/$out/emulator.o
aarch64-linux-gnu-g++ -std=c++20 -O1 -g -Wall -Wextra -Wconversion -Werror -c -o "$emulator.new" test/arm64/emulator.cc || fail "test/arm64/emulator.cc does not compile"
if cmp -s "$emulator" "$emulator.new"; then rm "$emulator.new"; else mv "$emulator.new" "$emulator"; rm -f "$out/plain/core_test"; fi
make_arm64 "-Wl,--wrap=syscall $emulator" build-arm64/plain/core_test || fail "the core does not compile for arm64"

is_arm64() { aarch64-linux-gnu-readelf -h "$1" | grep -q 'Machine: *AArch64'; }
check "core_test is an arm64 program" is_arm64 "$out/plain/core_test"
if [ $short = 0 ]; then
  check "the addon compiles and links for arm64" make_arm64 "" build-arm64/Release/kvlane.node
  check "the addon is an arm64 library" is_arm64 "$out/Release/kvlane.node"
fi

# A page is what the emulator says: without -p the host's, with it as large as asked.
echo 'extern "C" long sysconf(int); extern "C" int printf(const char*, ...); int main() { printf("%ld\n", sysconf(30)); }' |
  aarch64-linux-gnu-g++ -x c++ -w -o "$out/page_bytes" - || fail "a program of one line does not compile for arm64"
emulate() { qemu-aarch64-static -L /usr/aarch64-linux-gnu "$@"; }
has_pages() { [ "$(emulate -p "$1" "$out/page_bytes")" = "$1" ]; }

log=$(mktemp -t kvlane-arm64-XXXXXX)
lists=$(mktemp -t kvlane-arm64-XXXXXX)
trap 'rm -f "$log" "$lists"' EXIT
suite() { # page_bytes [part of a sentence]
  check "the emulator has pages of $1 bytes" has_pages "$1"
  echo "── core tests, arm64, pages of $1 bytes ${2:+(\"$2\")} ──"
  cat test/arm64/left_out.txt >"$lists"
  [ "$1" = 4096 ] || cat test/arm64/left_out_64k.txt >>"$lists"
  KVLANE_TESTS_LEFT_OUT=$lists timeout -k 10 300 qemu-aarch64-static -p "$1" -L /usr/aarch64-linux-gnu "$out/plain/core_test" ${2:+"$2"} 2>&1 | tee "$log"
  local status=${PIPESTATUS[0]} p=0 f=0 s=0
  [[ $(grep -E '^[0-9]+ passed, ' "$log" | tail -1) =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped ]] && p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[3]}
  if [ "$status" != 0 ] && [ "$f" = 0 ]; then
    f=1
    echo "FAILED: core tests with pages of $1 bytes ended with exit status $status" >&2
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

suite 4096
if [ $short = 0 ]; then suite 65536; else for part in arena block page region lane; do suite 65536 "$part"; done; fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
