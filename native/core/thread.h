// thread.h — how this process starts its threads, and how a lane parts from the descriptors.
#pragma once

#include <cstddef>

namespace kvlane {

// Address space only, touched as it is used: two pages by a lane that is stuck. What is not touched costs page tables all the
// same, so no more than needed: the deepest path takes some 10 KiB, and arm64 allows no less than this. The sanitizers' frames
// are several times larger.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr size_t thread_stack_bytes = 2 << 20;
#else
inline constexpr size_t thread_stack_bytes = 128 << 10;
#endif

// Detached and with every signal blocked: handlers are the main thread's business, and a signal
// that is delivered to a stuck thread is lost. Returns 0 or an errno (EAGAIN: no more threads).
int start_detached_thread(void* (*main)(void*), void* argument);

// For the calling thread, at most 15 bytes; it is what `ps -L` shows.
void name_this_thread(const char* name);

// The calling thread leaves the shared descriptor table with an empty one of its own. Otherwise a
// thread stuck in a killed process holds the process's pipes open, and the parent never sees their
// end. `kept` it takes along; negative: none. Returns 0 or an errno. -DKVLANE_KEEP_STDIO keeps 0–2, where sanitizers print.
int leave_descriptor_table(int kept = -1);

}  // namespace kvlane
