#include "completion_queue.h"

#include <mutex>
#include <utility>

namespace kvlane {

void CompletionQueue::push(Event event) {
    std::lock_guard<Monitor> hold(monitor_);
    events_.push_back(std::move(event));
    if (!wake_pending_) monitor_.wake_one();
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
        const bool due = timer_at_us_ != 0 && clock_.now_us() >= timer_at_us_;
        if ((due || !events_.empty()) && !wake_pending_) {
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
        } else if (timer_at_us_ != 0 && !due) {
            courier_sleeps_until_us_ = timer_at_us_;
            monitor_.wait_until(timer_at_us_);
            courier_sleeps_until_us_ = 0;
        } else {
            courier_sleeps_until_us_ = UINT64_MAX;
            monitor_.wait();
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
