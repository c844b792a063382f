// watch_word.h — what a lane is doing right now, in one atomic 64-bit word.
//
// A lane writes it around every system call; the supervisor reads all of them without a lock. Phase,
// system call and start time share the word, so that a reader never sees a new phase with an old
// start. 48 bits of microseconds last 8.9 years of uptime.
//
// The supervisor marks a call that it reported in the same word. So a call is reported once, exactly
// that call, and the lane learns on its way out that somebody wants to hear of its return.
#pragma once

#include <atomic>
#include <cstdint>

#include "operation.h"

namespace kvlane {

// The system calls a lane makes on a mount, by the names people grep for.
enum class Syscall : uint8_t {
    none, openat, openat2, statx, fstatat, read, preadv, pwritev, fsync, renameat2, unlinkat, mkdirat, close,
    io_setup, io_submit, io_getevents, io_destroy, fcntl,
    getdents64, linkat, fstatfs, fdatasync, write, lseek, utimensat,
};
const char* syscall_name(Syscall call);
const char* phase_name(Phase phase);

class WatchWord {
  public:
    struct Reading {
        Phase phase = Phase::queue;    // of the last call when inside none
        Syscall call = Syscall::none;  // none: not inside a call
        uint64_t since_us = 0;         // 0 when not inside a call
        bool reported = false;
        bool inside() const { return call != Syscall::none; }
        // io_getevents: the operation is with the kernel, but the thread that waits for it can be
        // asked for other things.
        bool holds_thread() const { return inside() && call != Syscall::io_getevents; }
    };

    // Called by the lane when a call returned that had been reported.
    struct Listener {
        virtual void reported_call_returned(WatchWord& word, const Reading& call) = 0;

      protected:
        ~Listener() = default;
    };
    explicit WatchWord(Listener* listener = nullptr) : listener_(listener) {}
    void report_to(Listener* listener) { listener_ = listener; }  // before it is used

    void enter(Phase phase, Syscall call, uint64_t now_us) {
        word_.store((now_us << 16) | (static_cast<uint64_t>(call) << 8) | static_cast<uint64_t>(phase), std::memory_order_release);
    }
    // The phase stays behind, so that an operation abandoned between two calls can say how far it was.
    void leave() {
        const uint64_t before = word_.load(std::memory_order_relaxed);
        const uint64_t call = word_.exchange(before & phase_bits, std::memory_order_acq_rel);
        if ((call & reported_bit) != 0 && listener_ != nullptr) listener_->reported_call_returned(*this, decode(call));
    }
    // Between two operations.
    void rest() { word_.store(0, std::memory_order_release); }

    Reading read() const { return decode(word_.load(std::memory_order_acquire)); }

    // True for exactly one caller per call, and only while that very call is running.
    bool mark_reported(const Reading& seen) {
        uint64_t expected = encode(seen) & ~reported_bit;
        return word_.compare_exchange_strong(expected, expected | reported_bit, std::memory_order_acq_rel, std::memory_order_acquire);
    }

  private:
    static constexpr uint64_t phase_bits = 0x7f;
    static constexpr uint64_t reported_bit = 0x80;
    static uint64_t encode(const Reading& r) {
        return (r.since_us << 16) | (static_cast<uint64_t>(r.call) << 8) | static_cast<uint64_t>(r.phase);
    }
    static Reading decode(uint64_t w) {
        return {static_cast<Phase>(w & phase_bits), static_cast<Syscall>((w >> 8) & 0xff), w >> 16, (w & reported_bit) != 0};
    }

    std::atomic<uint64_t> word_{0};
    Listener* listener_;
};

}  // namespace kvlane
