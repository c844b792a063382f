#!/usr/bin/env bash
# What the soak needs beside the product: the stall lab, and the wall clock that jumps.
set -euo pipefail
cd "$(dirname "$0")/../.."
python3 test/stall/stall.py build >&2
mkdir -p test/chaos/build
made=test/chaos/build/shift_clock.so source=test/chaos/shift_clock.c
# Several may build at once: each has a name of its own until it is whole.
[ "$made" -nt "$source" ] || { gcc -std=gnu17 -O2 -shared -fPIC -Wall -Wextra -Werror -o "$made.$$" "$source" && mv "$made.$$" "$made"; }
