// supervisor.h — the thread that says which calls do not come back.
//
// It reads the lanes' watch words, reports each call once that is over `stall_us`, and lets the pool
// replace the lane. It touches no mount and takes no lock that a lane holds during a system call.
// While nothing runs that it has not reported already, it sleeps without a time limit.
//
// When the supervisor itself was late (SIGSTOP, a paused machine, no processor), the calls get that
// time back before they are blamed: they could not have returned either.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "clock.h"
#include "monitor.h"

namespace kvlane {

// One look at everything.
struct Scan {
    uint64_t now_us = 0;
    uint64_t stall_us = 0;
    uint64_t late_us = 0;  // how much later than planned this scan is
    bool judge = true;     // false: grant the lateness, blame nobody yet
    // Answers:
    bool watching = false;  // something runs that has not been reported
    uint64_t due_us = UINT64_MAX;  // when the first of those that run will be over stall_us
};

class Watched {
  public:
    virtual void scan(Scan& scan) = 0;

  protected:
    ~Watched() = default;
};

class Supervisor {
  public:
    explicit Supervisor(const Clock& clock) : clock_(clock) {}

    void set_stall_us(uint64_t stall_us) { stall_us_.store(stall_us, std::memory_order_relaxed); }
    uint64_t stall_us() const { return stall_us_.load(std::memory_order_relaxed); }
    void watch(std::shared_ptr<Watched> watched);

    // By lanes: something started that may stall. One atomic increment, unless the supervisor sleeps.
    void something_runs();

    void run();  // the thread; returns after close()
    void close();

    // Looks at everything now; returns when to look again, 0: when something_runs() says so.
    uint64_t scan_once();
    uint64_t scan_once_for_testing() { return scan_once(); }
    // When the next scan is planned; 0: not at all.
    uint64_t planned_us_for_testing() const { return planned_us_.load(std::memory_order_relaxed); }

  private:
    // How often to look at least while something runs, so that a stop of the process is noticed as
    // such: a plan that lies further away hides how long the calls really ran before it.
    uint64_t tick_us() const;

    const Clock& clock_;
    std::atomic<uint64_t> stall_us_{1'000'000};
    std::atomic<uint64_t> planned_us_{0};  // when this scan should have been; 0: no plan
    bool skipped_last_ = false;            // the last scan was too late to judge

    Monitor monitor_;
    std::vector<std::shared_ptr<Watched>> watched_;
    bool closed_ = false;

    std::atomic<uint64_t> starts_{0};
    std::atomic<bool> asleep_{false};  // without a time limit
};

}  // namespace kvlane
