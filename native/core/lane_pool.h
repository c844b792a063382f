// lane_pool.h — one queue for one device and class, and the lanes that work it off.
//
// Lanes are started on demand, up to `lanes` that are not stuck. A lane counts as stuck while its
// thread is held by a call that was reported as stalled, or by an operation that was abandoned while
// it ran; work that waits then gets another lane, as long as the pool has no more than `lanes` + its
// stuck limit, and the process no more than its cap of such extra lanes. A stuck lane that comes back
// goes on, or retires if there are enough without it.
//
// One mutex, held for a few hundred instructions and never during a system call on a mount, so that
// the JavaScript thread and the supervisor may take it. Its order: pool, then completion queue.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "completion_queue.h"
#include "engine.h"
#include "lane.h"
#include "monitor.h"
#include "supervisor.h"

namespace kvlane {

// Extra lanes of the whole process: those that some pool has beyond its own `lanes`.
class ExtraLanes {
  public:
    void set_limit(unsigned limit) { limit_.store(limit, std::memory_order_relaxed); }
    bool take();
    void give() { used_.fetch_sub(1, std::memory_order_relaxed); }
    unsigned used() const { return used_.load(std::memory_order_relaxed); }

  private:
    std::atomic<unsigned> limit_{0};
    std::atomic<unsigned> used_{0};
};

// What a pool shares with the rest of its environment, and what tests put in the place of the world.
struct PoolWorld {
    const Clock* clock = nullptr;
    CompletionQueue* completions = nullptr;
    Supervisor* supervisor = nullptr;
    ExtraLanes* extra_lanes = nullptr;
    std::function<std::unique_ptr<BlockWork>(std::shared_ptr<Operation>)> make_work;
    std::function<int(void* (*)(void*), void*)> start_thread;  // 0 or an errno
};

struct PoolOptions {
    unsigned number = 0;
    LaneClass lane_class = LaneClass::load;
    unsigned lanes = 1;
    EngineKind engine = EngineKind::threads;
};

struct PoolState {
    uint64_t queued = 0;
    uint64_t running = 0;          // on a lane and still wanted
    uint64_t stuck = 0;            // lanes
    uint64_t lanes = 0;            // threads, idle, busy and stuck together
    uint64_t oldest_since_us = 0;  // these three: operations inside a call and still wanted
    std::vector<uint64_t> oldest_ids;
    uint64_t running_bytes = 0;
};
inline constexpr size_t oldest_ids_max = 8;  // enough to name the culprits of a suspended mount

struct Abandoned {
    State state = State::done;
    Phase phase = Phase::queue;
    uint64_t since_us = 0;  // of the call it is inside; between two calls: since a lane took it
};

class LanePool final : public std::enable_shared_from_this<LanePool>, public Watched {
  public:
    LanePool(PoolWorld world, PoolOptions options) : world_(std::move(world)), options_(options), engine_(options.engine) {}

    // From the JavaScript thread.
    void submit(Operations operations);
    Abandoned abandon(Operation& operation);
    bool withdraw(Operation& operation);  // false: it is not in the queue any more
    void set_stuck_limit(unsigned lanes);
    PoolState state() const;
    // all: also calls that are neither stalled nor abandoned.
    void stuck_calls(std::vector<CallReport>& out, bool all = false) const;
    EngineKind engine() const { return engine_.load(std::memory_order_acquire); }
    const PoolOptions& options() const { return options_; }
    // Lanes leave as they become free; nothing is waited for. What is queued stays unanswered.
    void close();

    // From the supervisor.
    void scan(Scan& scan) override;

    // From its lanes.
    std::shared_ptr<Operation> take(Lane& lane, unsigned seat, Wait wait);
    void finish(Lane& lane, unsigned seat);
    void reported_call_returned(Lane& lane, WatchWord& word, const WatchWord::Reading& call);
    void born(const Lane& lane, int error_of_descriptors);
    void left(Lane& lane);
    void could_not_start(Lane& lane, int error);  // no thread, or no memory for what it needs
    void fall_back_to_threads(const std::string& reason);
    bool leaving(const Lane& lane) const;
    bool nap(Lane& lane);
    bool work_waits() const { return queued_hint_.load(std::memory_order_relaxed) != 0; }
    const PoolWorld& world() const { return world_; }

  private:
    // All of these with the mutex held.
    size_t lanes_alive() const { return lanes_.size() - stuck_ - retiring_; }
    bool too_many(const Lane& lane) const;
    bool surplus(const Lane& lane) const;
    void recount(Lane& lane);
    std::vector<Lane*> lanes_to_start();
    void nudge_napping();
    void forget(Lane& lane);
    CallReport report(const Lane& lane, const Seat& seat, const WatchWord::Reading& call, uint64_t now_us) const;
    void complete_unstarted(std::shared_ptr<Operation> operation, Status status, int error);
    // Without it.
    void start(const std::vector<Lane*>& lanes);

    const PoolWorld world_;
    const PoolOptions options_;
    std::atomic<EngineKind> engine_;

    mutable Monitor monitor_;
    Operations queue_;
    std::atomic<size_t> queued_hint_{0};
    std::vector<std::unique_ptr<Lane>> lanes_;
    unsigned next_lane_number_ = 0;
    unsigned stuck_limit_ = 0;
    size_t stuck_ = 0;
    size_t idle_ = 0;
    size_t starting_ = 0;  // started, and not yet at the queue for the first time
    size_t retiring_ = 0;  // told to leave, and not yet gone
    bool closing_ = false;
    bool descriptors_noticed_ = false;
};

}  // namespace kvlane
