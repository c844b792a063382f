// keeper.h — a process that keeps this one's address space, so that a killed sidecar is gone at once.
//
// The kernel takes an address space down only after its native AIO has come back (exit_aio), and the
// process that leaves it last does the waiting, before its descriptors are closed: killed with one read
// on a stuck mount, a sidecar cannot be reaped and its pipes give no EOF. The keeper shares the address
// space and nothing else (clone with CLONE_VM: no thread, no descriptors), so it is the one that waits,
// as an orphan that ends when the mount answers; the sidecar is reaped within milliseconds.
//
// Mind: a reaped sidecar does not mean that its IO is over. As long as the keeper is there, the kernel
// may still write into the old arena.
#pragma once

#include <sys/types.h>

#include <string>

namespace kvlane {

// Once per process, before anything is submitted; called by the first aio lane, which has no
// descriptors to pass on. Empty, or why there is none and what that means.
std::string keep_address_space();

pid_t keeper_pid();  // 0: none

// On the way out, if nothing of AIO is in flight: takes the keeper away again, so that no zombie is
// left where nobody reaps orphans. Bounded; the keeper stays where there is something to keep. From
// here on nothing more is submitted: what went in after the look would have no keeper.
void dismiss_keeper();

// After a fork, which has no keeper of its own.
void forget_keeper_for_testing();

// The aio engine counts what it has in the kernel: before it submits, and when it is back or was not
// taken. False: this process is leaving, and nothing may be submitted any more.
bool aio_begins();
void aio_ended();

}  // namespace kvlane
