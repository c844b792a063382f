#include "lane_world.h"

namespace kvlane::test {

namespace {

class GatedWork final : public BlockWork {
  public:
    GatedWork(Gate& gate, const Clock& clock, std::shared_ptr<Operation> operation) : gate_(gate), clock_(clock), operation_(std::move(operation)) {}

    std::optional<Transfer> start(LaneContext& lane) override {
        Operation& operation = *operation_;
        const std::string& what = operation.hex;
        if (what == "read") call(lane, Phase::read, Syscall::preadv, 1);
        if (what == "compute") gate_.pass(operation.id, 1);
        if (what == "twice") {
            call(lane, Phase::open, Syscall::openat, 1);
            call(lane, Phase::read, Syscall::preadv, 2);
        }
        if (what == "rename") {
            if (operation.begin_commit()) {
                call(lane, Phase::rename, Syscall::renameat2, 1);
            } else {
                operation.result.status = Status::expired;
            }
        }
        if (operation.abandoned()) operation.result.status = Status::expired;
        return std::nullopt;
    }
    std::optional<Transfer> resume(LaneContext&, int64_t) override { return std::nullopt; }

  private:
    void call(LaneContext& lane, Phase phase, Syscall name, unsigned releases) {
        if (name == Syscall::preadv) lane.header_page()[0] = std::byte{1};  // a direct read takes hold of the page before it waits
        lane.word().enter(phase, name, clock_.now_us());
        gate_.pass(operation_->id, releases);
        lane.word().leave();
        operation_->result.phase = phase;
    }

    Gate& gate_;
    const Clock& clock_;
    const std::shared_ptr<Operation> operation_;
};

}  // namespace

LaneWorld& LaneWorld::make() {
    auto* world = new LaneWorld;
    world->extra_lanes.set_limit(10'000);
    world->supervisor.set_stall_us(1'000'000);
    return *world;
}

std::shared_ptr<LanePool> LaneWorld::pool(unsigned lanes, unsigned stuck_limit, LaneClass lane_class) {
    PoolWorld world{
        .clock = &clock,
        .completions = &completions,
        .supervisor = &supervisor,
        .extra_lanes = &extra_lanes,
        .make_work = [this](std::shared_ptr<Operation> operation) { return std::make_unique<GatedWork>(gate, clock, std::move(operation)); },
        .start_thread =
            [this](void* (*main)(void*), void* argument) {
                if (const int error = no_threads.load()) return error;
                threads_made.fetch_add(1);
                return start_detached_thread(main, argument);
            },
    };
    auto pool = std::make_shared<LanePool>(world, PoolOptions{.number = 0, .lane_class = lane_class, .lanes = lanes});
    pool->set_stuck_limit(stuck_limit);
    supervisor.watch(pool);
    return pool;
}

std::shared_ptr<Operation> LaneWorld::submit(LanePool& pool, const std::string& what, uint64_t deadline_us) {
    auto operation = std::make_shared<Operation>();
    operation->id = next_id++;
    operation->hex = what;
    operation->bytes = 1000;
    operation->deadline_us = deadline_us;
    pool.submit({operation});
    return operation;
}

const std::vector<Event>& LaneWorld::listen() {
    auto batch = completions.take();
    for (Event& event : batch.events) heard.push_back(std::move(event));
    return heard;
}

const Event* LaneWorld::done(const Operation& operation) {
    for (const Event& event : listen()) {
        if (event.type == Event::Type::done && event.operation.get() == &operation) return &event;
    }
    return nullptr;
}

unsigned LaneWorld::count(Event::Type type) {
    unsigned count = 0;
    for (const Event& event : listen()) count += event.type == type ? 1 : 0;
    return count;
}

}  // namespace kvlane::test
