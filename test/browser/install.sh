#!/usr/bin/env bash
# Installs the browser in which pages are tested: Debian's chromium-headless-shell, 100 MB to fetch and 350 on the disk; a minute the first time.
set -euo pipefail

command -v chromium-headless-shell >/dev/null && exit 0
command="apt-get install -y --no-install-recommends chromium-headless-shell"
[ "$(id -u)" = 0 ] || { echo "no chromium-headless-shell here. As root: apt-get update && $command" >&2; exit 1; }
apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive $command </dev/null >&2
command -v chromium-headless-shell >/dev/null
