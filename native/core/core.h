// core.h — everything that one JavaScript environment has: mounts, pools, operations, threads.
//
// The face that the addon talks to, from one thread. Nothing here waits and nothing touches a mount.
// A Core is made with `new` and never deleted: its threads may be in the kernel when everything else
// of the environment is gone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "arena.h"
#include "bell.h"
#include "clock.h"
#include "completion_queue.h"
#include "lane_pool.h"
#include "mount.h"
#include "supervisor.h"

namespace kvlane {

class BounceBuffers;  // bounce.h

class Core {
  public:
    struct Settled {
        Abandoned where;
        std::vector<uint8_t> found;  // lookup: what was proven until now
    };

    Core();
    Core(const Core&) = delete;
    Core& operator=(const Core&) = delete;

    // Empty, or what this machine lacks; to ask before start(). Touches no mount.
    static std::string missing();
    // Once. The bell rings when there is something to take(). 0 or an errno: no thread.
    int start(uint64_t stall_us, unsigned stuck_process_max);
    const Bell& bell() const { return bell_; }
    bool started() const { return started_; }
    // Lanes, courier and supervisor leave when they can; no wake-up happens after it. Waits for nothing.
    void close();

    const Clock& clock() const { return clock_; }
    CompletionQueue& completions() { return completions_; }

    unsigned add_mount(std::string root);
    std::shared_ptr<Mount> mount(uint64_t number) const;  // null: there is none

    // `for_probes`: its extra lanes come from a reserve of their own, and not from the cap of the process. Work that has
    // used up the cap must not keep anybody from noticing that the mount is well again, and a hundred stuck probes must not
    // take lanes from work.
    unsigned create_pool(LaneClass lane_class, unsigned lanes, EngineKind engine, bool for_probes);
    LanePool* pool(uint64_t number) const;  // null: there is none
    // Its lanes leave as they become free, and close their roots; stuck ones when they come back. Nothing may wait in its
    // queue any more, and nothing may be submitted. Its number stays, and tells of those that are stuck.
    void close_pool(LanePool& pool);
    bool is_closed(const LanePool& pool) const { return closed_pools_.contains(pool.options().number); }

    // Or the id of one that is outstanding already; then none of them was submitted.
    std::optional<uint64_t> submit(LanePool& pool, Operations operations);
    // An id that is not outstanding counts as done: its completion may be in the batch that is just being read.
    Settled abandon(uint64_t id);
    // Takes it back if it is queued; otherwise nothing has changed.
    bool withdraw(uint64_t id);
    // Somebody else waits for its end: it is told at once, also when it has ended and lingers.
    void hurry(uint64_t id);
    std::vector<CallReport> stuck(bool all = false) const;

    CompletionQueue::Batch take();

    // Something will come of its own accord that somebody still waits for. Abandoned operations do not
    // count: they may never come.
    bool expects_news() const { return wanted_ > 0 || completions_.timer_armed(); }

    // Region 0 and 1; empty until made, which is before the pools.
    Arena arena;
    // Where the arena lies on small pages: which classes go through private huge ones (bounce.h).
    bool bounce_loads = false;
    bool bounce_stores = false;
    Region staging;
    Region region(uint64_t number) const { return number == 0 ? arena.region : number == 1 ? staging : Region{}; }

  private:
    struct Outstanding {
        std::shared_ptr<Operation> operation;
        LanePool* pool;
        bool wanted;
    };

    MonotonicClock clock_;
    const Bell bell_;
    CompletionQueue completions_{clock_, &bell_};
    Supervisor supervisor_{clock_};
    ExtraLanes extra_lanes_;
    ExtraLanes probe_lanes_;
    bool started_ = false;
    std::vector<std::shared_ptr<Mount>> mounts_;
    std::vector<std::shared_ptr<LanePool>> pools_;
    std::unordered_set<unsigned> closed_pools_;
    std::unordered_map<unsigned, std::shared_ptr<BounceBuffers>> bounces_;  // by pool, of those that have them
    std::unordered_map<uint64_t, Outstanding> outstanding_;
    size_t wanted_ = 0;
};

}  // namespace kvlane
