#include "core.h"

#include <malloc.h>
#include <sys/prctl.h>

#include <utility>

#include "block_work.h"
#include "bounce.h"
#include "file_system.h"
#include "thread.h"

namespace kvlane {

namespace {
// Three probes at once in place of one, in three classes and where a mount is identified, on 32 mounts: the most that can be
// wanted in a hurry. Policy has smaller bounds for each.
constexpr unsigned probe_lanes_max = 2 * 4 * 32;
}  // namespace

Core::Core() { probe_lanes_.set_limit(probe_lanes_max); }

std::string Core::missing() { return openat2_refusal(); }

int Core::start(uint64_t stall_us, unsigned stuck_process_max) {
    // One heap for all: lanes hold little and take it from their own small stores, and a heap for each of the first sixteen threads
    // would keep three KiB more for every lane that is stuck.
#ifdef M_ARENA_MAX  // glibc's
    mallopt(M_ARENA_MAX, 1);
#endif
    supervisor_.set_stall_us(stall_us);
    extra_lanes_.set_limit(stuck_process_max);
    int error = start_detached_thread([](void* self) -> void* {
        name_this_thread("kv-courier");
        // The kernel may round a thread's timers up by 50 us; deadlines are this thread's business.
        prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
        Core& core = *static_cast<Core*>(self);
        core.completions_.run_courier([&core] { core.bell_.ring(); });
        return nullptr;
    }, this);
    if (error != 0) return error;
    error = start_detached_thread([](void* self) -> void* {
        name_this_thread("kv-supervisor");
        static_cast<Core*>(self)->supervisor_.run();
        return nullptr;
    }, this);
    if (error != 0) completions_.close();
    started_ = error == 0;
    return error;
}

void Core::close() {
    completions_.close();
    supervisor_.close();
    for (const auto& pool : pools_) pool->close();
}

unsigned Core::add_mount(std::string root) {
    const unsigned number = static_cast<unsigned>(mounts_.size());
    mounts_.push_back(std::make_shared<Mount>(std::move(root), number));
    return number;
}

std::shared_ptr<Mount> Core::mount(uint64_t number) const { return number < mounts_.size() ? mounts_[number] : nullptr; }

unsigned Core::create_pool(LaneClass lane_class, unsigned lanes, EngineKind engine, bool for_probes) {
    const unsigned number = static_cast<unsigned>(pools_.size());
    const bool wanted = lane_class == LaneClass::load ? bounce_loads : lane_class == LaneClass::store && bounce_stores;
    const bool detour = wanted && !for_probes && arena.backing == Arena::Backing::shmem && private_thp_allowed();
    const unsigned buffers = lanes * (engine == EngineKind::aio ? aio_seats : threads_seats);
    if (detour) bounces_[number] = std::make_shared<BounceBuffers>(buffers);
    const PoolWorld world{
        .clock = &clock_,
        .completions = &completions_,
        .supervisor = &supervisor_,
        .extra_lanes = for_probes ? &probe_lanes_ : &extra_lanes_,
        .make_work = detour ? through_bounce(make_block_work, arena.region, bounces_[number]) : make_block_work,
        .start_thread = start_detached_thread,
    };
    pools_.push_back(std::make_shared<LanePool>(world, PoolOptions{number, lane_class, lanes, engine}));
    supervisor_.watch(pools_.back());
    return number;
}

LanePool* Core::pool(uint64_t number) const { return number < pools_.size() ? pools_[number].get() : nullptr; }

void Core::close_pool(LanePool& pool) {
    if (!closed_pools_.insert(pool.options().number).second) return;
    pool.close();
    if (const auto bounce = bounces_.extract(pool.options().number)) bounce.mapped()->close();
}

std::optional<uint64_t> Core::submit(LanePool& pool, Operations operations) {
    for (auto each = operations.begin(); each != operations.end(); ++each) {
        const uint64_t id = (*each)->id;
        if (outstanding_.try_emplace(id, *each, &pool, true).second) continue;
        while (each != operations.begin()) outstanding_.erase((*--each)->id);
        return id;
    }
    wanted_ += operations.size();
    pool.submit(std::move(operations));
    return std::nullopt;
}

Core::Settled Core::abandon(uint64_t id) {
    Settled settled;
    const auto entry = outstanding_.find(id);
    if (entry == outstanding_.end()) return settled;
    Operation& operation = *entry->second.operation;
    settled.where = entry->second.pool->abandon(operation);
    settled.found.reserve(operation.found.size());
    for (const auto& found : operation.found) settled.found.push_back(found.load(std::memory_order_relaxed));
    if (settled.where.state != State::done && std::exchange(entry->second.wanted, false)) --wanted_;
    if (settled.where.state == State::queued) outstanding_.erase(entry);
    return settled;
}

bool Core::withdraw(uint64_t id) {
    const auto entry = outstanding_.find(id);
    if (entry == outstanding_.end() || !entry->second.pool->withdraw(*entry->second.operation)) return false;
    if (entry->second.wanted) --wanted_;
    outstanding_.erase(entry);
    return true;
}

void Core::hurry(uint64_t id) {
    const auto entry = outstanding_.find(id);
    if (entry == outstanding_.end()) return;
    entry->second.operation->awaited.store(true, std::memory_order_relaxed);
    completions_.tell_now();
}

std::vector<CallReport> Core::stuck(bool all) const {
    std::vector<CallReport> calls;
    for (const auto& pool : pools_) pool->stuck_calls(calls, all);
    return calls;
}

CompletionQueue::Batch Core::take() {
    auto batch = completions_.take();
    for (const Event& event : batch.events) {
        if (event.type != Event::Type::done) continue;
        const auto entry = outstanding_.find(event.operation->id);
        if (entry == outstanding_.end()) continue;
        if (entry->second.wanted) --wanted_;
        outstanding_.erase(entry);
    }
    return batch;
}

}  // namespace kvlane
