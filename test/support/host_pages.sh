#!/usr/bin/env bash
# host_pages.sh — huge pages of the host for the length of a test, put back whatever becomes of the test.
#
#   host_pages.sh pool=4 shmem=never
#
#   pool=N      exactly N free pages of 2 MiB in the hugetlb pool; where the host has free ones of its own, they are not touched
#   shmem=WORD  the policy for transparent huge pages of shared memory
#
# Says "ready", or "refused: " and why, and stays until its stdin ends: the end of a test that was killed is no other. In a
# session of its own, so that a Ctrl-C or the kill of a process group leaves it alive to put things back. One at a time on a machine: the
# settings are everybody's. What is in use when the pool shrinks goes when its user does: the kernel sees to that.
set -u
pool=/sys/kernel/mm/hugepages/hugepages-2048kB
shmem=/sys/kernel/mm/transparent_hugepage/shmem_enabled
lock_wait_s=120 # the longest test that has them takes a few seconds
tries_max=3
leave_looks_max=50 # 5 s

if [ -z "${KVLANE_OWN_SESSION:-}" ]; then
  KVLANE_OWN_SESSION=1 exec setsid --wait bash "$0" "$@"
fi
trap '' INT TERM HUP PIPE

refuse() { echo "refused: $*"; exit 0; }
number() { cat "$pool/$1_hugepages"; }
free_pages() { echo $(($(number free) - $(number resv))); }

pages='' word=''
for each in "$@"; do
  case $each in
    pool=*) pages=${each#pool=} ;;
    shmem=*) word=${each#shmem=} ;;
    *) refuse "want pool=N or shmem=WORD, got $each" ;;
  esac
done
if [ -n "$pages" ]; then [ -w "$pool/nr_hugepages" ] || refuse "the hugetlb pool cannot be set here (root; and a kernel that has one)"; fi
if [ -n "$word" ]; then [ -w "$shmem" ] || refuse "$shmem cannot be set here (root; and a kernel that has it)"; fi

exec 9</sys/kernel/mm
flock -w $lock_wait_s 9 || refuse "another test has had the host's huge pages for $lock_wait_s s"

# Without those that are over the number and go when their user does: they are not to be kept by putting it back.
pool_before='' shmem_before=''
put_back() {
  [ -z "$shmem_before" ] || echo "$shmem_before" >"$shmem"
  [ -z "$pool_before" ] || echo "$pool_before" >"$pool/nr_hugepages"
}
trap put_back EXIT

if [ -n "$pages" ]; then
  [ "$(free_pages)" -le 0 ] || refuse "this host has $(free_pages) free huge pages of its own, and they are not ours to use up"
  for ((look = 0; look < leave_looks_max && $(number surplus) > 0; look++)); do sleep 0.1; done # a process of the test before that is just leaving
  surplus=$(number surplus)
  pool_before=$(($(number nr) - surplus))
  for ((try = 0; try < tries_max; try++)); do
    [ "$(free_pages)" -lt "$pages" ] || break
    # Memory that is in pieces is put together: writing the number does so for each page, this for all.
    [ $try = 0 ] || echo 1 >/proc/sys/vm/compact_memory
    echo $((pool_before + surplus + pages)) 2>/dev/null >"$pool/nr_hugepages"
  done
  [ "$(free_pages)" = "$pages" ] ||
    refuse "of $pages huge pages this machine has memory in one piece for $(free_pages), also after compaction (nothing else helps but to free memory, or a restart)"
fi
if [ -n "$word" ]; then
  shmem_before=$(sed -E 's/.*\[(.*)\].*/\1/' "$shmem")
  { echo "$word" >"$shmem"; } 2>/dev/null || { shmem_before=''; refuse "this kernel takes no '$word' in $shmem"; }
  # Also these are given only where memory is in one piece; a test that wants a few of them must find them.
  [ "$word" = never ] || echo 1 >/proc/sys/vm/compact_memory
fi
echo ready
read -r _ || true
