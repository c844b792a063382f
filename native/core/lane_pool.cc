#include "lane_pool.h"

#include <errno.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "aio.h"

namespace kvlane {

bool ExtraLanes::take() {
    unsigned used = used_.load(std::memory_order_relaxed);
    do {
        if (used >= limit_.load(std::memory_order_relaxed)) return false;
    } while (!used_.compare_exchange_weak(used, used + 1, std::memory_order_relaxed));
    return true;
}

// ---- from the JavaScript thread ----

void LanePool::submit(Operations operations) {
    std::vector<Lane*> to_start;
    size_t to_wake = operations.size();
    for (auto each = operations.begin(); each != operations.end(); ++each) (*each)->queue_position = each;  // splicing keeps it
    {
        std::lock_guard<Monitor> hold(monitor_);
        queue_.splice(queue_.end(), operations);
        queued_hint_.store(queue_.size(), std::memory_order_relaxed);
        to_wake = std::min(to_wake, idle_);
        to_start = lanes_to_start();
    }
    // Not with the mutex held: it is the first thing that a woken lane wants.
    for (; to_wake > 0; --to_wake) monitor_.wake_one();
    start(to_start);
}

Abandoned LanePool::abandon(Operation& operation) {
    std::vector<Lane*> to_start;
    Abandoned answer;
    {
        std::lock_guard<Monitor> hold(monitor_);
        // Queued and running change under this mutex only, so a queued one is in the queue and a
        // running one has its seat. Committing is the lane's own step, decided by the shared byte.
        answer.state = operation.abandon();
        if (answer.state == State::queued) {
            queue_.erase(operation.queue_position);
            queued_hint_.store(queue_.size(), std::memory_order_relaxed);
        } else if (answer.state != State::done) {
            Seat& seat = *operation.seat;
            const auto call = seat.word.read();
            answer.phase = call.phase;
            answer.since_us = call.inside() ? call.since_us : seat.taken_us;
            seat.abandoned = true;
            recount(*operation.lane);
            to_start = lanes_to_start();
        }
    }
    start(to_start);
    return answer;
}

bool LanePool::withdraw(Operation& operation) {
    std::lock_guard<Monitor> hold(monitor_);
    if (!operation.withdraw()) return false;
    operation.last_of_its_task();
    queue_.erase(operation.queue_position);
    queued_hint_.store(queue_.size(), std::memory_order_relaxed);
    return true;
}

void LanePool::set_stuck_limit(unsigned lanes) {
    std::vector<Lane*> to_start;
    {
        std::lock_guard<Monitor> hold(monitor_);
        stuck_limit_ = lanes;
        to_start = lanes_to_start();
    }
    start(to_start);
}

PoolState LanePool::state() const {
    std::vector<std::pair<uint64_t, uint64_t>> inside;  // since, id
    PoolState state;
    std::lock_guard<Monitor> hold(monitor_);
    state.queued = queue_.size();
    state.lanes = lanes_.size();
    state.stuck = stuck_;
    for (const auto& lane : lanes_) {
        for (const Seat& seat : lane->seats_) {
            if (!seat.operation || seat.abandoned) continue;
            ++state.running;
            const auto call = seat.word.read();
            if (!call.inside()) continue;
            state.running_bytes += seat.operation->bytes;
            inside.emplace_back(call.since_us, seat.operation->id);
        }
    }
    const size_t named = std::min(inside.size(), oldest_ids_max);
    std::partial_sort(inside.begin(), inside.begin() + static_cast<ptrdiff_t>(named), inside.end());
    for (size_t i = 0; i < named; ++i) state.oldest_ids.push_back(inside[i].second);
    if (named > 0) state.oldest_since_us = inside[0].first;
    return state;
}

void LanePool::stuck_calls(std::vector<CallReport>& out, bool all) const {
    const uint64_t now_us = world_.clock->now_us();
    std::lock_guard<Monitor> hold(monitor_);
    for (const auto& lane : lanes_) {
        for (const Seat& seat : lane->seats_) {
            if (!all && !seat.stalled && !seat.abandoned) continue;
            const auto call = seat.word.read();
            if (seat.operation || call.inside()) out.push_back(report(*lane, seat, call, now_us));
        }
    }
}

void LanePool::close() {
    std::lock_guard<Monitor> hold(monitor_);
    closing_ = true;
    monitor_.wake_all();
}

// ---- from the supervisor ----

void LanePool::scan(Scan& scan) {
    std::vector<Lane*> to_start;
    {
        std::lock_guard<Monitor> hold(monitor_);
        for (const auto& lane : lanes_) {
            for (Seat& seat : lane->seats_) {
                const auto call = seat.word.read();
                if (!seat.operation && !call.inside()) continue;
                if (call.reported) continue;
                if (!call.inside() || call.since_us > scan.now_us) {
                    scan.watching = true;
                    continue;
                }
                if (seat.allowance_since_us != call.since_us) {
                    seat.allowance_since_us = call.since_us;
                    seat.allowance_us = 0;
                }
                seat.allowance_us = std::min(seat.allowance_us + scan.late_us, scan.now_us - call.since_us);
                const uint64_t blamed_from_us = call.since_us + seat.allowance_us + scan.stall_us;
                if (scan.judge && scan.now_us >= blamed_from_us && seat.word.mark_reported(call)) {
                    seat.stalled = true;
                    recount(*lane);
                    // With the mutex held: the lane's "recovered" must come after it.
                    world_.completions->push({.type = Event::Type::stalled, .call = report(*lane, seat, call, scan.now_us)});
                } else {
                    scan.watching = true;
                    scan.due_us = std::min(scan.due_us, blamed_from_us);
                }
            }
        }
        to_start = lanes_to_start();
    }
    start(to_start);
}

// ---- from the lanes ----

std::shared_ptr<Operation> LanePool::take(Lane& lane, unsigned seat_number, Wait wait) {
    Seat& seat = lane.seats_[seat_number];
    std::unique_lock<Monitor> hold(monitor_);
    if (lane.starting_) {
        lane.starting_ = false;
        --starting_;
    }
    for (;;) {
        if ((closing_ || too_many(lane)) && !lane.holds_operation()) {
            if (!lane.retiring_) {
                lane.retiring_ = true;
                ++retiring_;
                // It may be the one that was woken for what waits: another idle one must take that up.
                if (!queue_.empty() && idle_ > 0) monitor_.wake_one();
            }
            return nullptr;
        }
        while (!queue_.empty() && !closing_) {
            std::shared_ptr<Operation> operation = std::move(queue_.front());
            queue_.pop_front();
            queued_hint_.store(queue_.size(), std::memory_order_relaxed);
            operation->begin_running();  // cannot fail: abandon() takes what is queued out of the queue
            const uint64_t now_us = world_.clock->now_us();
            if (operation->past_deadline(now_us)) {
                complete_unstarted(std::move(operation), Status::expired, 0);
                continue;
            }
            operation->lane = &lane;
            operation->seat = &seat;
            seat.operation = operation;
            seat.taken_us = now_us;
            hold.unlock();
            world_.supervisor->something_runs();
            return operation;
        }
        if (wait == Wait::no) return nullptr;
        ++idle_;
        monitor_.wait();
        --idle_;
    }
}

void LanePool::finish(Lane& lane, unsigned seat_number) {
    Seat& seat = lane.seats_[seat_number];
    std::shared_ptr<Operation> operation;
    bool late;
    uint64_t linger = 0;
    {
        std::lock_guard<Monitor> hold(monitor_);
        operation = std::move(seat.operation);
        late = operation->finish();
        const bool last = operation->last_of_its_task();
        if (!late) linger = !last ? linger_within_task_us : queue_.empty() ? 0 : linger_us;
        operation->lane = nullptr;
        operation->seat = nullptr;
        seat.operation = nullptr;
        seat.stalled = false;
        seat.abandoned = false;
        seat.word.rest();
        recount(lane);
    }
    world_.completions->push({.type = Event::Type::done, .operation = std::move(operation), .late = late}, linger);
}

void LanePool::reported_call_returned(Lane& lane, WatchWord& word, const WatchWord::Reading& call) {
    {
        std::lock_guard<Monitor> hold(monitor_);
        for (Seat& seat : lane.seats_) {
            if (&seat.word != &word) continue;
            seat.stalled = false;
            recount(lane);
            world_.completions->push({.type = Event::Type::recovered, .call = report(lane, seat, call, world_.clock->now_us())});
        }
    }
    world_.supervisor->something_runs();  // its operation goes on, with a call that nobody watches yet
}

void LanePool::born(const Lane& lane, int error_of_descriptors) {
    if (error_of_descriptors == 0) return;
    {
        std::lock_guard<Monitor> hold(monitor_);
        if (std::exchange(descriptors_noticed_, true)) return;
    }
    world_.completions->push({.type = Event::Type::notice,
                              .text = "lane " + std::to_string(lane.number()) + " could not leave the shared descriptor table (errno " +
                                      std::to_string(error_of_descriptors) +
                                      "): if a lane is stuck when this process ends, its pipes stay open until the mount answers"});
}

void LanePool::left(Lane& lane) {
    std::vector<Lane*> to_start;
    {
        std::lock_guard<Monitor> hold(monitor_);
        forget(lane);
        to_start = lanes_to_start();
    }
    start(to_start);
}

void LanePool::fall_back_to_threads(const std::string& reason) {
    if (engine_.exchange(EngineKind::threads) == EngineKind::threads) return;  // said once
    world_.completions->push({.type = Event::Type::notice, .text = reason});
}

bool LanePool::leaving(const Lane& lane) const {
    std::lock_guard<Monitor> hold(monitor_);
    return closing_ || surplus(lane);
}

bool LanePool::nap(Lane& lane) {
    std::lock_guard<Monitor> hold(monitor_);
    if (!queue_.empty() && !closing_ && !surplus(lane)) return false;
    lane.napping_.store(true, std::memory_order_relaxed);
    return true;
}

// ---- with the mutex held ----

bool LanePool::too_many(const Lane& lane) const { return lane.retiring_ || (!lane.counted_stuck_ && lanes_alive() > options_.lanes); }

// For a lane that still holds operations and so cannot leave at once: only the youngest, as many as there are too many. If
// every lane thought it the one too many, none would take up work as long as the kernel keeps what they hold.
bool LanePool::surplus(const Lane& lane) const {
    if (!too_many(lane) || lane.retiring_) return lane.retiring_;
    size_t left = lanes_alive() - options_.lanes;
    for (auto each = lanes_.rbegin(); each != lanes_.rend() && left > 0; ++each) {
        if (each->get() == &lane) return true;
        if (!(*each)->counted_stuck_ && !(*each)->retiring_) --left;
    }
    return false;
}

void LanePool::recount(Lane& lane) {
    const bool stuck = !lane.retiring_ && lane.stuck();  // a retiring one is counted as that already
    if (stuck == lane.counted_stuck_) return;
    lane.counted_stuck_ = stuck;
    stuck_ = stuck ? stuck_ + 1 : stuck_ - 1;
}

// Enough that each waiting operation finds a lane, within the limits. The lanes are counted from here on.
std::vector<Lane*> LanePool::lanes_to_start() {
    std::vector<Lane*> lanes;
    while (!closing_ && queue_.size() > idle_ + starting_ && lanes_alive() < options_.lanes) {
        if (lanes_.size() >= options_.lanes) {
            if (lanes_.size() >= options_.lanes + stuck_limit_ || !world_.extra_lanes->take()) break;
        }
        const unsigned seats = engine() == EngineKind::aio ? aio_seats : threads_seats;
        lanes_.push_back(std::make_unique<Lane>(shared_from_this(), next_lane_number_++, seats));
        lanes_.back()->starting_ = true;
        ++starting_;
        lanes.push_back(lanes_.back().get());
    }
    nudge_napping();
    return lanes;
}

// Lanes that wait for what they have in flight and have seats to spare. One for each operation that finds
// neither an idle nor a new lane: the first of them may be about to hang.
void LanePool::nudge_napping() {
    if (closing_ || engine() != EngineKind::aio || queue_.size() <= idle_ + starting_) return;
    size_t wanted = queue_.size() - idle_ - starting_;
    for (const auto& lane : lanes_) {
        if (!lane->napping_.load(std::memory_order_relaxed) || surplus(*lane)) continue;
        if (!lane->napping_.exchange(false, std::memory_order_relaxed)) continue;
        aio_calls().nudge(lane->tid());
        if (--wanted == 0) return;
    }
}

void LanePool::forget(Lane& lane) {
    if (lanes_.size() > options_.lanes) world_.extra_lanes->give();
    if (lane.counted_stuck_) --stuck_;
    if (lane.starting_) --starting_;
    if (lane.retiring_) --retiring_;
    std::erase_if(lanes_, [&lane](const std::unique_ptr<Lane>& each) { return each.get() == &lane; });
}

CallReport LanePool::report(const Lane& lane, const Seat& seat, const WatchWord::Reading& call, uint64_t now_us) const {
    const uint64_t since_us = call.inside() ? call.since_us : seat.taken_us;
    return {seat.operation, options_.number, lane.tid(), call.phase, call.call, since_us, now_us > since_us ? now_us - since_us : 0, seat.abandoned};
}

void LanePool::complete_unstarted(std::shared_ptr<Operation> operation, Status status, int error) {
    operation->result.status = status;
    operation->result.error = error;
    operation->result.phase = Phase::queue;
    const bool late = operation->finish();
    const uint64_t linger = operation->last_of_its_task() ? 0 : linger_within_task_us;
    world_.completions->push({.type = Event::Type::done, .operation = std::move(operation), .late = late}, linger);
}

// ---- without it ----

// Creating a thread takes 20 us, sometimes 300: too long for the mutex.
void LanePool::start(const std::vector<Lane*>& lanes) {
    for (Lane* lane : lanes) {
        const int error = world_.start_thread(Lane::run, lane);
        if (error != 0) could_not_start(*lane, error);
    }
}

void LanePool::could_not_start(Lane& lane, int error) {
    std::lock_guard<Monitor> hold(monitor_);
    forget(lane);
    if (lanes_alive() > 0) {  // they work the queue off
        nudge_napping();
        return;
    }
    while (!queue_.empty()) {
        std::shared_ptr<Operation> operation = std::move(queue_.front());
        queue_.pop_front();
        complete_unstarted(std::move(operation), Status::saturated, error);
    }
    queued_hint_.store(0, std::memory_order_relaxed);
}

}  // namespace kvlane
