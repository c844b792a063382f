// supervisor_test.cc — what is reported as stalled, when, and when nobody is to blame.
#include "lane_world.h"
#include "test.h"

using namespace kvlane;
using namespace kvlane::test;

TEST("a call is reported stalled once, and recovered once, in this order and before it is done") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto read = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    const uint64_t entered_us = world.clock.now_us();
    for (int i = 0; i < 10; ++i) {
        world.clock.advance_us(250'000);
        world.supervisor.scan_once_for_testing();
    }
    CHECK_EQUAL(world.count(Event::Type::stalled), 1U);
    const CallReport stalled = world.heard[0].call;
    CHECK(stalled.operation == read);
    CHECK_EQUAL(stalled.call, Syscall::preadv);
    CHECK_EQUAL(stalled.phase, Phase::read);
    CHECK_EQUAL(stalled.since_us, entered_us);
    CHECK_EQUAL(stalled.for_us, 1'000'000U);
    CHECK(stalled.tid > 0);
    CHECK(!stalled.abandoned);

    world.gate.release(read->id);
    CHECK_EVENTUALLY(world.done(*read) != nullptr);
    CHECK_EQUAL(world.heard.size(), 3U);
    CHECK_EQUAL(world.heard[1].type, Event::Type::recovered);
    CHECK_EQUAL(world.heard[1].call.for_us, 2'500'000U);
    CHECK_EQUAL(world.heard[2].type, Event::Type::done);
}

TEST("each stalled call of one operation is reported") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto twice = world.submit(*pool, "twice");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    world.clock.advance_us(1'000'000);
    world.supervisor.scan_once_for_testing();
    world.gate.release(twice->id);
    CHECK_EVENTUALLY(world.count(Event::Type::recovered) == 1 && world.gate.inside() == 1 && pool->state().oldest_since_us == world.clock.now_us());
    CHECK_EQUAL(pool->state().stuck, 0U);  // it answers again
    world.clock.advance_us(1'000'000);
    world.supervisor.scan_once_for_testing();
    CHECK_EQUAL(world.count(Event::Type::stalled), 2U);
    CHECK_EQUAL(world.heard.back().call.call, Syscall::preadv);
    world.gate.release_all();
    CHECK_EVENTUALLY(world.count(Event::Type::recovered) == 2);
}

TEST("an abandoned operation is reported too, and stays in the list of stuck calls") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto read = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    pool->abandon(*read);
    world.clock.advance_us(1'000'000);
    world.supervisor.scan_once_for_testing();
    CHECK_EQUAL(world.count(Event::Type::stalled), 1U);
    CHECK(world.heard[0].call.abandoned);
    std::vector<CallReport> calls;
    pool->stuck_calls(calls);
    CHECK_EQUAL(calls.size(), 1U);
    world.gate.release_all();
}

TEST("a call that is not late is listed only for who asks for all that lanes have in hand") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto read = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    world.clock.advance_us(1'000);
    std::vector<CallReport> late;
    pool->stuck_calls(late);
    CHECK_EQUAL(late.size(), 0U);
    std::vector<CallReport> all;
    pool->stuck_calls(all, true);
    CHECK_EQUAL(all.size(), 1U);
    CHECK_EQUAL(all.back().call, Syscall::preadv);
    CHECK_EQUAL(all.back().for_us, 1'000U);
    CHECK(!all.back().abandoned);
    world.gate.release_all();
    CHECK_EVENTUALLY(world.done(*read) != nullptr);
    std::vector<CallReport> none;
    pool->stuck_calls(none, true);
    CHECK_EQUAL(none.size(), 0U);
}

TEST("the supervisor plans nothing while nothing runs, and nothing more for what it has reported") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    CHECK_EQUAL(world.supervisor.scan_once_for_testing(), 0U);
    auto read = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    CHECK_EQUAL(world.supervisor.scan_once_for_testing(), world.clock.now_us() + 250'000);
    for (int i = 0; i < 3; ++i) {
        world.clock.advance_us(250'000);
        CHECK_EQUAL(world.supervisor.scan_once_for_testing(), world.clock.now_us() + 250'000);
    }
    world.clock.advance_us(250'000);
    CHECK_EQUAL(world.supervisor.scan_once_for_testing(), 0U);
    CHECK_EQUAL(world.count(Event::Type::stalled), 1U);
    CHECK_EQUAL(world.supervisor.scan_once_for_testing(), 0U);
    world.gate.release_all();
}

TEST("the last look before a call is due is made when it is due") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    const uint64_t entered_us = world.clock.now_us();
    world.clock.advance_us(900'000);
    CHECK_EQUAL(world.supervisor.scan_once_for_testing(), entered_us + 1'000'000);
    world.gate.release_all();
}

TEST("a supervisor that was stopped for ten seconds blames no call for them") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    world.supervisor.scan_once_for_testing();  // the next is planned in 250 ms
    world.clock.advance_us(10'000'000);
    world.supervisor.scan_once_for_testing();
    CHECK_EQUAL(world.count(Event::Type::stalled), 0U);
    // 250 ms of the ten seconds were planned; 750 ms more, and it is really stalled.
    for (int i = 0; i < 2; ++i) {
        world.clock.advance_us(250'000);
        world.supervisor.scan_once_for_testing();
        CHECK_EQUAL(world.count(Event::Type::stalled), 0U);
    }
    world.clock.advance_us(250'000);
    world.supervisor.scan_once_for_testing();
    CHECK_EQUAL(world.count(Event::Type::stalled), 1U);
    world.gate.release_all();
}

TEST("a call that began after a pause gets nothing back for it") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(2);
    world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    world.supervisor.scan_once_for_testing();
    world.clock.advance_us(10'000'000);
    auto young = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 2);
    world.supervisor.scan_once_for_testing();
    for (int i = 0; i < 4; ++i) {
        world.clock.advance_us(250'000);
        world.supervisor.scan_once_for_testing();
    }
    CHECK_EQUAL(world.count(Event::Type::stalled), 2U);
    CHECK(world.heard.back().call.operation == young);
    CHECK_EQUAL(world.heard.back().call.for_us, 1'000'000U);
    world.gate.release_all();
}

TEST("a machine that is always late is still told what is stuck") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    for (int i = 0; i < 8; ++i) {  // each look comes 50 ms late
        world.supervisor.scan_once_for_testing();
        world.clock.advance_us(300'000);
    }
    CHECK_EQUAL(world.count(Event::Type::stalled), 1U);
    world.gate.release_all();
}

TEST("the supervisor's own thread wakes when something runs, and reports it") {
    // Real time: the one test of run() itself.
    static MonotonicClock clock;
    auto& world = *new CompletionQueue(clock);
    auto& supervisor = *new Supervisor(clock);
    auto& extra_lanes = *new ExtraLanes;
    auto& gate = *new Gate;
    supervisor.set_stall_us(20'000);
    start_detached_thread(
        [](void* self) -> void* {
            static_cast<Supervisor*>(self)->run();
            return nullptr;
        },
        &supervisor);
    struct Stuck final : BlockWork {
        Gate& gate;
        explicit Stuck(Gate& its_gate) : gate(its_gate) {}
        std::optional<Transfer> start(LaneContext& lane) override {
            lane.word().enter(Phase::open, Syscall::openat2, clock.now_us());
            gate.pass(1, 1);
            lane.word().leave();
            return std::nullopt;
        }
        std::optional<Transfer> resume(LaneContext&, int64_t) override { return std::nullopt; }
    };
    auto pool = std::make_shared<LanePool>(PoolWorld{&clock, &world, &supervisor, &extra_lanes,
                                                     [&gate](std::shared_ptr<Operation>) { return std::make_unique<Stuck>(gate); }, start_detached_thread},
                                           PoolOptions{});
    supervisor.watch(pool);
    auto operation = std::make_shared<Operation>();
    operation->id = 1;
    pool->submit({operation});
    std::vector<Event> heard;
    const auto listen = [&] {
        for (auto& event : world.take().events) heard.push_back(event);
        return heard.size();
    };
    CHECK_EVENTUALLY(listen() == 1);
    CHECK_EQUAL(heard[0].type, Event::Type::stalled);
    CHECK(heard[0].call.for_us >= 20'000);
    gate.release(1);
    CHECK_EVENTUALLY(listen() == 3);
    CHECK_EQUAL(heard[1].type, Event::Type::recovered);
    supervisor.close();
}
