// watch_word.h — what a lane is doing right now, in one atomic 64-bit word.
//
// A lane writes it around every system call; the supervisor reads all of them without a lock. Phase,
// system call and start time share the word, so that a reader never sees a new phase with an old
// start. 48 bits of microseconds last 8.9 years of uptime.
#pragma once

#include <atomic>
#include <cstdint>

#include "operation.h"

namespace kvlane {

// The system calls a lane makes on a mount, by the names people grep for.
enum class Syscall : uint8_t {
    none, openat, openat2, statx, fstatfs, read, preadv, pwritev, fsync, renameat2, linkat, unlinkat, mkdirat, close,
    io_setup, io_submit, io_getevents, io_destroy, fcntl,
};
const char* syscall_name(Syscall call);
const char* phase_name(Phase phase);

class WatchWord {
  public:
    struct Reading {
        Phase phase;
        Syscall call;      // none: not inside a call
        uint64_t since_us;
    };
    void enter(Phase phase, Syscall call, uint64_t now_us) {
        word_.store((now_us << 16) | (static_cast<uint64_t>(call) << 8) | static_cast<uint64_t>(phase), std::memory_order_release);
    }
    void leave() { word_.store(0, std::memory_order_release); }
    Reading read() const {
        const uint64_t w = word_.load(std::memory_order_acquire);
        return {static_cast<Phase>(w & 0xff), static_cast<Syscall>((w >> 8) & 0xff), w >> 16};
    }

  private:
    std::atomic<uint64_t> word_{0};
};

}  // namespace kvlane
