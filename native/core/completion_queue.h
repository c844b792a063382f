// completion_queue.h — from the lanes to the JavaScript thread, without loss and without a wait.
//
// Lanes push under a short mutex and go on; the queue grows with what is outstanding and no further,
// since an operation completes once and a call is reported stalled and recovered once.
//
// Who has news that cannot wait rings the loop's bell himself, once and not again until the batch was taken; everything
// that arrives in between rides along. A completion that ends nobody's wait lingers a little, for company: small blocks
// are through in a few microseconds, and a wake-up of the loop for each costs more than the block.
// The courier rings when such waiting is over. It also keeps the one timer, and sleeps without a time limit when it has
// nothing to wait for.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "bell.h"
#include "clock.h"
#include "event.h"
#include "monitor.h"

namespace kvlane {

// How long news may wait for more of it: where more work is queued, and others may end a task with it: less than one disk read.
inline constexpr uint64_t linger_us = 100;
// Of a task that goes on in any case; the last of it is told as any other, and what somebody else waits for (tell_now)
// at once. Some hundreds of small blocks at most: the loop is through with them in half a millisecond.
inline constexpr uint64_t linger_within_task_us = 2'000;

class CompletionQueue {
  public:
    struct Batch {
        std::vector<Event> events;  // in the order they were pushed
        bool timer = false;         // the timer is due, and now disarmed
    };

    // Without a bell the courier wakes whomever it is told to.
    explicit CompletionQueue(const Clock& clock, const Bell* bell = nullptr) : clock_(clock), bell_(bell) {}
    // What the lanes take along; negative: nothing.
    int bell_fd() const { return bell_ == nullptr ? -1 : bell_->fd(); }

    // Any thread. Never throws: a lane whose news is lost would leave its task to the deadline and its
    // slot in quarantine for ever.
    // The receiver may be told up to `linger` microseconds later.
    void push(Event event, uint64_t linger = 0) noexcept;
    Batch take();            // the receiver, after a wake-up (or whenever it likes)
    // What lingers need not any longer. The receiver hears of it soon, not from within this call.
    void tell_now();

    // One timer; replaces the former, 0 disarms. Fires at the time or after it, never before.
    void arm_timer(uint64_t at_us);
    bool timer_armed() const;

    // The courier's life; `wake` must not block. Returns after close().
    void run_courier(const std::function<void()>& wake);
    // When it returns, no wake-up is under way and none will follow. Events may still be pushed.
    void close();

  private:
    const Clock& clock_;
    const Bell* const bell_;
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
