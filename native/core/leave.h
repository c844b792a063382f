// leave.h — the end of this process, and news of the parent's.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

namespace kvlane {

// Ends the process now: no joins, no destructors, no exit handlers; all of those would wait for a
// thread that does not come back. Pipes and sockets on 0–2 are closed first, so that the parent sees
// their end even if a thread that shares them stays behind. Anything else there is left open: nobody
// waits for its end, and closing a file that lies on the stuck mount would hang.
[[noreturn]] void leave_now(int code);

// Calls `gone` once, from a thread of its own, when the process `pid` has ended, at once if it has
// ended already. Returns an empty string, or why it cannot watch.
std::string watch_parent(pid_t pid, std::function<void()> gone);

}  // namespace kvlane
