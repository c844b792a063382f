#include "completion_queue.h"

#include <time.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <new>
#include <utility>

namespace kvlane {

namespace {
// Together one second. A process that is then still without a few hundred bytes
// is ended: its client copes with that, with an answer that never comes it does not.
constexpr unsigned tries_max = 1'000;
constexpr timespec between_tries{0, 1'000'000};
}  // namespace

void CompletionQueue::push(Event event, uint64_t linger) noexcept {
    for (unsigned tries = 1;; tries++) {
        try {
            bool ring;
            bool wake;
            {
                std::lock_guard<Monitor> hold(monitor_);
                // Said before this mutex was taken, or tell_now() comes after this and finds the event.
                const Operation* const operation = event.operation.get();
                if (operation != nullptr && operation->awaited.load(std::memory_order_relaxed)) linger = 0;
                // The last of its task, in another lane, may have overtaken it on the way here: then it is the last.
                if (linger > linger_us && operation != nullptr && operation->unfinished && operation->unfinished->load(std::memory_order_relaxed) == 0) linger = 0;
                events_.push_back(std::move(event));  // leaves the event as it is when it throws
                const uint64_t tell_at_us = linger == 0 ? 0 : clock_.now_us() + linger;
                tell_at_us_ = events_.size() == 1 ? tell_at_us : std::min(tell_at_us_, tell_at_us);
                ring = bell_ != nullptr && tell_at_us_ == 0 && !wake_pending_;
                if (ring) wake_pending_ = true;
                wake = !wake_pending_ && tell_at_us_ < courier_sleeps_until_us_;
            }
            // Not with the mutex held: it is the first thing that the woken one wants.
            if (ring) bell_->ring();
            else if (wake) monitor_.wake_one();
            return;
        } catch (const std::bad_alloc&) {
            if (tries == tries_max) std::terminate();
        }
        nanosleep(&between_tries, nullptr);
    }
}

CompletionQueue::Batch CompletionQueue::take() {
    std::lock_guard<Monitor> hold(monitor_);
    Batch batch;
    batch.events.swap(events_);
    if (timer_at_us_ != 0 && clock_.now_us() >= timer_at_us_) {
        batch.timer = true;
        timer_at_us_ = 0;
    }
    // The courier needs no word of this: a timer that is not due it waits for already, and whoever
    // pushes from now on wakes it.
    wake_pending_ = false;
    return batch;
}

void CompletionQueue::tell_now() {
    bool ring;
    {
        std::lock_guard<Monitor> hold(monitor_);
        if (events_.empty() || wake_pending_) return;
        tell_at_us_ = 0;
        ring = bell_ != nullptr;
        wake_pending_ = ring;
        if (!ring && courier_sleeps_until_us_ != 0) monitor_.wake_one();
    }
    if (ring) bell_->ring();
}

void CompletionQueue::arm_timer(uint64_t at_us) {
    std::lock_guard<Monitor> hold(monitor_);
    timer_at_us_ = at_us;
    // A later timer is not worth a wake-up: the courier finds it when the former time comes.
    if (at_us != 0 && at_us < courier_sleeps_until_us_) monitor_.wake_one();
}

bool CompletionQueue::timer_armed() const {
    std::lock_guard<Monitor> hold(monitor_);
    return timer_at_us_ != 0;
}

void CompletionQueue::run_courier(const std::function<void()>& wake) {
    std::unique_lock<Monitor> hold(monitor_);
    while (!closed_) {
        const uint64_t now_us = clock_.now_us();
        uint64_t next_us = timer_at_us_ == 0 ? UINT64_MAX : timer_at_us_;
        if (wake_pending_) {
            if (next_us <= now_us) next_us = UINT64_MAX;  // take() looks at it
        } else if (!events_.empty()) {
            next_us = std::min(next_us, tell_at_us_);
        }
        if (next_us <= now_us) {
            wake_pending_ = true;
            hold.unlock();
            {
                std::lock_guard<Monitor> waking(waking_);
                bool closed;
                {
                    std::lock_guard<Monitor> look(monitor_);
                    closed = closed_;
                }
                if (!closed) wake();
            }
            hold.lock();
        } else {
            courier_sleeps_until_us_ = next_us;
            if (next_us == UINT64_MAX) monitor_.wait();
            else monitor_.wait_until(next_us);
            courier_sleeps_until_us_ = 0;
        }
    }
}

void CompletionQueue::close() {
    {
        std::lock_guard<Monitor> hold(monitor_);
        closed_ = true;
        monitor_.wake_all();
    }
    std::lock_guard<Monitor> none_under_way(waking_);
}

}  // namespace kvlane
