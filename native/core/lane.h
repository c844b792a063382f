// lane.h — one native thread that makes the calls on a mount, and the operations it holds.
//
// A call may never return: a stalled mount keeps the thread in the kernel, and no signal takes it
// out. So a lane is never waited for and never joined; one that overruns is counted as stuck and
// replaced, and when it comes back it goes on or retires.
//
// At birth it blocks every signal and leaves the whole descriptor table: while the process is a
// corpse that this thread keeps from being reaped, its pipes must still close.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "block_work.h"
#include "clock.h"
#include "operation.h"
#include "watch_word.h"

namespace kvlane {

class LanePool;

enum class Wait : uint8_t { no, yes };

// One operation at the kernel. All but the word is guarded by the pool's mutex.
struct Seat {
    WatchWord word;
    std::shared_ptr<Operation> operation;
    uint64_t taken_us = 0;
    bool stalled = false;            // the supervisor reported the call it is in
    bool abandoned = false;          // the operation's claim was settled while it ran
    uint64_t allowance_since_us = 0;  // the call that `allowance_us` was granted to
    uint64_t allowance_us = 0;       // time the supervisor itself was late while that call ran
};

class Lane final : private WatchWord::Listener {
  public:
    Lane(std::shared_ptr<LanePool> pool, unsigned number, unsigned seats);

    // ---- for the engine, in the lane's thread ----

    // The next operation, seated. nullptr: with Wait::yes the lane must leave; with Wait::no there
    // is nothing to do just now, or the lane must leave (see leaving()).
    // Operations that are past their deadline are completed as expired here, without a call.
    std::shared_ptr<Operation> take(unsigned seat, Wait wait);

    // The operation on this seat is through: operation->result is complete. Empties the seat, then
    // queues the completion.
    void finish(unsigned seat);

    // True when the pool closes or has a lane too many; an engine with empty seats only returns then.
    bool leaving() const;
    // A guess without a lock: is it worth while to call take(…, Wait::no)?
    bool work_waits() const;

    // Before a wait for what is in flight, by an engine with empty seats. True: wait, and new work ends the
    // wait (AioCalls::nudge). False: work is there. awake() after the wait.
    bool nap();
    void awake() { napping_.store(false, std::memory_order_relaxed); }

    std::unique_ptr<BlockWork> make_work(std::shared_ptr<Operation> operation);
    WatchWord& word(unsigned seat) { return seats_[seat].word; }
    unsigned seats() const { return static_cast<unsigned>(seats_.size()); }
    const Clock& clock() const;
    // The pool goes on with `threads`, aloud: `reason` becomes a notice.
    void fall_back(const std::string& reason);
    void notice(const std::string& text);

    // ---- for the pool ----
    unsigned number() const { return number_; }
    pid_t tid() const { return tid_.load(std::memory_order_acquire); }
    // The thread: birth, the engine's loop, retirement. Owns itself through `self`.
    static void* run(void* self);

  private:
    friend class LanePool;
    void reported_call_returned(WatchWord& word, const WatchWord::Reading& call) override;
    bool holds_operation() const;  // these two: under the pool's mutex
    bool stuck() const;

    const std::shared_ptr<LanePool> pool_;
    const unsigned number_;
    std::atomic<pid_t> tid_{0};
    const std::unique_ptr<Seat[]> own_seats_;  // seats do not move
    const std::span<Seat> seats_;
    std::atomic<bool> napping_{false};  // set under the pool's mutex, cleared by whoever ends the nap

    // What the pool has counted it as; guarded by the pool's mutex.
    bool starting_ = false;
    bool retiring_ = false;
    bool counted_stuck_ = false;
};

}  // namespace kvlane
