// completion_queue.h — from the lanes to the JavaScript thread, without loss and without a wait.
//
// Lanes push under a short mutex and go on; the queue grows with what is outstanding and no further,
// since an operation completes once and a call is reported stalled and recovered once.
//
// The courier is the only thread that wakes the loop: that takes a descriptor, and lanes have none of
// ours. It wakes once and not again until the batch was taken; everything that arrives in between
// rides along. A completion that ends nobody's wait lingers a little, for company: small blocks
// are through in a few microseconds, and a wake-up of the loop for each costs more than the block.
// The courier also keeps the one timer, and sleeps without a time limit when it has nothing to wait for.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "clock.h"
#include "event.h"
#include "monitor.h"

namespace kvlane {

// How long news may wait for more of it: where more work is queued, and others may end a task with it: less than one disk read.
inline constexpr uint64_t linger_us = 100;
// Of a task that goes on in any case; the last of it is told as any other. Some dozens of small blocks; what the
// loop has to do for them is no more than it does in passing when the last has come.
inline constexpr uint64_t linger_within_task_us = 500;

class CompletionQueue {
  public:
    struct Batch {
        std::vector<Event> events;  // in the order they were pushed
        bool timer = false;         // the timer is due, and now disarmed
    };

    explicit CompletionQueue(const Clock& clock) : clock_(clock) {}

    // Any thread. Never throws: a lane whose news is lost would leave its task to the deadline and its
    // slot in quarantine for ever.
    // The receiver may be told up to `linger` microseconds later.
    void push(Event event, uint64_t linger = 0) noexcept;
    Batch take();            // the receiver, after a wake-up (or whenever it likes)

    // One timer; replaces the former, 0 disarms. Fires at the time or after it, never before.
    void arm_timer(uint64_t at_us);
    bool timer_armed() const;

    // The courier's life; `wake` must not block. Returns after close().
    void run_courier(const std::function<void()>& wake);
    // When it returns, no wake-up is under way and none will follow. Events may still be pushed.
    void close();

  private:
    const Clock& clock_;
    mutable Monitor monitor_;
    std::vector<Event> events_;
    uint64_t timer_at_us_ = 0;
    uint64_t courier_sleeps_until_us_ = 0;  // 0: it is awake; UINT64_MAX: no time limit
    uint64_t tell_at_us_ = 0;    // when the receiver is to be woken for what is in events_; 0: at once
    bool wake_pending_ = false;  // the receiver was woken and has not taken yet
    bool closed_ = false;
    Monitor waking_;  // held during a wake-up, for close()
};

}  // namespace kvlane
