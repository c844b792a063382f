#include "supervisor.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace kvlane {

namespace {
constexpr uint64_t tick_us_min = 1'000;    // looking is not to cost a core
constexpr uint64_t tick_us_max = 250'000;  // four looks a second, with whatever stall_us
// Ordinary lateness of a wake-up on a busy machine. It is given back, but needs no second look.
constexpr uint64_t late_us_ordinary = 10'000;
}  // namespace

uint64_t Supervisor::tick_us() const { return std::clamp(stall_us() / 4, tick_us_min, tick_us_max); }

void Supervisor::watch(std::shared_ptr<Watched> watched) {
    std::lock_guard<Monitor> hold(monitor_);
    watched_.push_back(std::move(watched));
}

void Supervisor::something_runs() {
    // Either run() sees this increment after it said that it is asleep, or we see that it is.
    starts_.fetch_add(1, std::memory_order_seq_cst);
    if (!asleep_.load(std::memory_order_seq_cst)) return;
    std::lock_guard<Monitor> hold(monitor_);
    if (!asleep_.exchange(false, std::memory_order_seq_cst)) return;
    planned_us_.store(clock_.now_us(), std::memory_order_relaxed);  // should look from now on
    monitor_.wake_all();
}

uint64_t Supervisor::scan_once() {
    std::vector<std::shared_ptr<Watched>> watched;
    {
        std::lock_guard<Monitor> hold(monitor_);
        watched = watched_;
    }
    const uint64_t planned_us = planned_us_.load(std::memory_order_relaxed);
    Scan scan;
    scan.now_us = clock_.now_us();
    scan.stall_us = stall_us();
    scan.late_us = planned_us != 0 && scan.now_us > planned_us ? scan.now_us - planned_us : 0;
    // What was due in the pause may be about to return, and what began just before it would be blamed
    // for the rest of the plan: look again after a tick. But not twice in a row, for a machine that is
    // always late.
    scan.judge = scan.late_us <= late_us_ordinary || skipped_last_;
    skipped_last_ = !scan.judge;
    for (const auto& each : watched) each->scan(scan);
    uint64_t next_us = 0;
    if (scan.watching) next_us = scan.now_us + std::clamp(scan.due_us - std::min(scan.due_us, scan.now_us), tick_us_min, tick_us());
    planned_us_.store(next_us, std::memory_order_relaxed);
    return next_us;
}

void Supervisor::run() {
    for (;;) {
        const uint64_t starts = starts_.load(std::memory_order_seq_cst);
        const uint64_t next_us = scan_once();
        std::unique_lock<Monitor> hold(monitor_);
        if (next_us != 0) {
            while (!closed_ && clock_.now_us() < next_us) monitor_.wait_until(next_us);
        } else {
            asleep_.store(true, std::memory_order_seq_cst);
            if (starts_.load(std::memory_order_seq_cst) != starts) asleep_.store(false, std::memory_order_seq_cst);
            while (!closed_ && asleep_.load(std::memory_order_seq_cst)) monitor_.wait();
        }
        if (closed_) return;
    }
}

void Supervisor::close() {
    std::lock_guard<Monitor> hold(monitor_);
    closed_ = true;
    watched_.clear();
    monitor_.wake_all();
}

}  // namespace kvlane
