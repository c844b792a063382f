// lane_world.h — a world in which operations stay inside their call until the test lets them out.
//
// Real lanes, real threads, a clock that the test moves. No file system: what an operation does is
// named by its `hex`:
//     "read"     is inside preadv until released
//     "rename"   begins to commit and is inside renameat2 until released
//     "compute"  is between two calls until released
//     "twice"    is inside openat until released, then inside preadv until released again
//     "quick"    is through at once
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lane_context.h"
#include "lane_pool.h"
#include "monitor.h"
#include "thread.h"

namespace kvlane::test {

// Who is let out. Operations are named by id.
class Gate {
  public:
    void release(uint64_t id) {
        std::lock_guard<Monitor> hold(monitor_);
        ++let_out_[id];
        monitor_.wake_all();
    }
    void release_all() {
        std::lock_guard<Monitor> hold(monitor_);
        open_ = true;
        monitor_.wake_all();
    }
    // The lane's side; `so_often`: how many releases it takes.
    void pass(uint64_t id, unsigned so_often) {
        std::unique_lock<Monitor> hold(monitor_);
        ++inside_;
        while (!open_ && let_out_[id] < so_often) monitor_.wait();
        --inside_;
    }
    unsigned inside() const {
        std::lock_guard<Monitor> hold(monitor_);
        return inside_;
    }

  private:
    mutable Monitor monitor_;
    std::map<uint64_t, unsigned> let_out_;
    unsigned inside_ = 0;
    bool open_ = false;
};

struct LaneWorld {
    ManualClock clock;
    CompletionQueue completions{clock};
    Supervisor supervisor{clock};
    ExtraLanes extra_lanes;
    Gate gate;
    std::atomic<int> no_threads{0};  // an errno: no thread can be made
    std::atomic<unsigned> threads_made{0};
    std::vector<Event> heard;
    uint64_t next_id = 1;

    // Never freed: lanes stay in it.
    static LaneWorld& make();
    std::shared_ptr<LanePool> pool(unsigned lanes, unsigned stuck_limit = 0, LaneClass lane_class = LaneClass::load);
    std::shared_ptr<Operation> submit(LanePool& pool, const std::string& what, uint64_t deadline_us = 0);

    // What has been heard of until now.
    const std::vector<Event>& listen();
    const Event* done(const Operation& operation);  // null: not yet
    unsigned count(Event::Type type);
};

}  // namespace kvlane::test
