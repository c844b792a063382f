#!/usr/bin/env bash
# The file systems and servers that the acceptance run mounts, from Debian. Nothing that is installed here is started: not now, and not
# by the system either, because its service is kept from starting while it is installed.
set -euo pipefail
have() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1; }

find_missing() {
  missing=()
  have ip || missing+=(iproute2)
  have nsenter || missing+=(util-linux)
  have losetup || missing+=(mount)
  have mkfs.ext4 || missing+=(e2fsprogs)
  have mkfs.xfs || missing+=(xfsprogs)
  have mkfs.btrfs || missing+=(btrfs-progs)
  have nft || missing+=(nftables)
  have sshd || missing+=(openssh-server)
  have ssh || missing+=(openssh-client)
  have sshfs || missing+=(sshfs)
  have glusterd || missing+=(glusterfs-server)
  have gluster || missing+=(glusterfs-cli)
  have mount.glusterfs || missing+=(glusterfs-client)
  if [[ " $* " == *" --full "* || " $* " == *" moosefs "* ]]; then # beyond what CI runs
    have mfsmaster || missing+=(moosefs-master)
    have mfschunkserver || missing+=(moosefs-chunkserver)
    have mfsmount || missing+=(moosefs-client)
  fi
}

find_missing "$@"
[ ${#missing[@]} -gt 0 ] || exit 0
if ! have apt-get; then # main.py says what it cannot show
  echo "mounts: missing, and there is no apt-get: ${missing[*]}" >&2
  exit 0
fi
echo "mounts: apt-get install ${missing[*]}" >&2
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
fi
apt-get -o DPkg::Lock::Timeout=300 update -qq >&2 </dev/null || true
DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >&2 </dev/null ||
  echo "mounts: not everything could be installed; what lacks is said below" >&2
