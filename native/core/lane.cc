#include "lane.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <new>

#include "engine.h"
#include "lane_context.h"
#include "lane_pool.h"
#include "thread.h"

namespace kvlane {

Lane::Lane(std::shared_ptr<LanePool> pool, unsigned number, unsigned seats)
    : pool_(std::move(pool)), number_(number), own_seats_(std::make_unique<Seat[]>(seats)), seats_(own_seats_.get(), seats) {
    for (Seat& seat : seats_) seat.word.report_to(this);
}

std::shared_ptr<Operation> Lane::take(unsigned seat, Wait wait) { return pool_->take(*this, seat, wait); }
void Lane::finish(unsigned seat) { pool_->finish(*this, seat); }
bool Lane::leaving() const { return pool_->leaving(*this); }
bool Lane::nap() { return pool_->nap(*this); }
bool Lane::work_waits() const { return pool_->work_waits(); }
const Clock& Lane::clock() const { return *pool_->world().clock; }
void Lane::fall_back(const std::string& reason) { pool_->fall_back_to_threads(reason); }
void Lane::notice(const std::string& text) { pool_->world().completions->push({.type = Event::Type::notice, .text = text}); }

std::unique_ptr<BlockWork> Lane::make_work(std::shared_ptr<Operation> operation) {
    return pool_->world().make_work(std::move(operation));
}

void Lane::reported_call_returned(WatchWord& word, const WatchWord::Reading& call) {
    pool_->reported_call_returned(*this, word, call);
}

bool Lane::holds_operation() const {
    for (const Seat& seat : seats_) {
        if (seat.operation) return true;
    }
    return false;
}

// The thread is lost for now, or has no seat left for anything else.
bool Lane::stuck() const {
    size_t lost = 0;
    for (const Seat& seat : seats_) {
        if (!seat.stalled && !seat.abandoned) continue;
        if (seat.word.read().holds_thread()) return true;
        ++lost;
    }
    return lost == seats_.size();
}

void* Lane::run(void* self) {
    Lane& lane = *static_cast<Lane*>(self);
    const std::shared_ptr<LanePool> pool = lane.pool_;  // outlives the lane's own

    static constexpr const char* short_names[] = {"load", "store", "meta"};
    char name[16];
    snprintf(name, sizeof name, "kv-%s-%u", short_names[static_cast<size_t>(pool->options().lane_class)], lane.number_ % 100'000);
    name_this_thread(name);
    lane.tid_.store(gettid(), std::memory_order_release);
    pool->born(lane, leave_descriptor_table(pool->world().completions->bell_fd()));
    LaneContext::prepare_thread();

    try {
        if (pool->engine() != EngineKind::aio || !run_aio_engine(lane)) run_threads_engine(lane);
    } catch (const std::bad_alloc&) {  // before its first operation; the engines catch all later ones
        pool->could_not_start(lane, ENOMEM);
        return nullptr;
    }
    pool->left(lane);
    return nullptr;
}

}  // namespace kvlane
