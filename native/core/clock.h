// clock.h — CLOCK_MONOTONIC in microseconds, behind an interface so that tests can move time.
//
// The clock is the one Python's time.monotonic_ns and Node's process.hrtime read, so a deadline may
// cross process borders as it is.
#pragma once

#include <time.h>

#include <atomic>
#include <cstdint>

namespace kvlane {

class Clock {
  public:
    virtual ~Clock() = default;
    virtual uint64_t now_us() const = 0;
};

class MonotonicClock final : public Clock {
  public:
    uint64_t now_us() const override {
        timespec now{};
        clock_gettime(CLOCK_MONOTONIC, &now);
        return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1'000;
    }
};

// Time that moves when the test says. Threads may read it meanwhile.
class ManualClock final : public Clock {
  public:
    explicit ManualClock(uint64_t start_us = 1'000'000) : now_us_(start_us) {}
    uint64_t now_us() const override { return now_us_.load(std::memory_order_acquire); }
    void advance_us(uint64_t by_us) { now_us_.fetch_add(by_us, std::memory_order_acq_rel); }

  private:
    std::atomic<uint64_t> now_us_;
};

}  // namespace kvlane
