// pool_test.cc — how many lanes there are, and when.
#include <errno.h>

#include "lane_world.h"
#include "test.h"

using namespace kvlane;
using namespace kvlane::test;

TEST("lanes are made on demand and no further than `lanes`") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(3);
    CHECK_EQUAL(world.threads_made.load(), 0U);
    for (int i = 0; i < 10; ++i) world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 3);
    CHECK_EQUAL(world.threads_made.load(), 3U);
    CHECK_EQUAL(pool->state().queued, 7U);
    CHECK_EQUAL(pool->state().running, 3U);
    CHECK_EQUAL(pool->state().running_bytes, 3'000U);
    CHECK_EQUAL(pool->state().oldest_ids.size(), 3U);
    CHECK_EQUAL(pool->state().oldest_since_us, world.clock.now_us());
    world.gate.release_all();
    CHECK_EVENTUALLY(world.count(Event::Type::done) == 10);
    CHECK_EQUAL(world.threads_made.load(), 3U);
}

TEST("one operation after another needs one lane") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(4);
    for (int i = 0; i < 20; ++i) {
        auto quick = world.submit(*pool, "quick");
        CHECK_EVENTUALLY(world.done(*quick) != nullptr);
        CHECK_EVENTUALLY(pool->state().running == 0);
    }
    // A lane that has told of its completion may not be back at the queue when the next operation comes.
    CHECK(world.threads_made.load() <= 4);
}

TEST("operations of one lane complete in the order they were submitted, and none is lost") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    std::vector<std::shared_ptr<Operation>> submitted;
    for (int i = 0; i < 5'000; ++i) submitted.push_back(world.submit(*pool, "quick"));
    CHECK_EVENTUALLY(world.count(Event::Type::done) == 5'000);
    for (size_t i = 0; i < submitted.size() && i < world.heard.size(); ++i) {
        if (world.heard[i].operation != submitted[i]) {
            CHECK_EQUAL(world.heard[i].operation->id, submitted[i]->id);
            break;
        }
    }
}

TEST("operations that are submitted together find as many lanes as single ones, and each can be taken back") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(3);
    Operations together;
    for (int i = 0; i < 10; ++i) {
        together.push_back(std::make_shared<Operation>());
        together.back()->id = world.next_id++;
        together.back()->hex = "read";
    }
    const std::vector<std::shared_ptr<Operation>> kept(together.begin(), together.end());
    pool->submit(std::move(together));
    CHECK_EVENTUALLY(world.gate.inside() == 3);
    CHECK_EQUAL(world.threads_made.load(), 3U);
    CHECK_EQUAL(pool->state().queued, 7U);
    CHECK(pool->withdraw(*kept[5]));
    CHECK_EQUAL(pool->abandon(*kept[9]).state, State::queued);
    CHECK(!pool->withdraw(*kept[0]));
    world.gate.release_all();
    CHECK_EVENTUALLY(world.count(Event::Type::done) == 8);
}

TEST("the last of a task is the one behind which none of it is left, also when others were taken back or came too late") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    Operations together;
    for (int i = 0; i < 4; ++i) {
        together.push_back(std::make_shared<Operation>());
        together.back()->id = world.next_id++;
        together.back()->hex = "read";
    }
    const std::vector<std::shared_ptr<Operation>> kept(together.begin(), together.end());
    const auto unfinished = std::make_shared<std::atomic<size_t>>(together.size());
    for (const auto& each : kept) each->unfinished = unfinished;
    kept[3]->deadline_us = 1;  // before it is looked at
    pool->submit(std::move(together));
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    CHECK_EQUAL(unfinished->load(), 4U);
    CHECK(pool->withdraw(*kept[1]));
    CHECK(!pool->withdraw(*kept[1]));
    CHECK_EQUAL(unfinished->load(), 3U);
    world.gate.release(kept[0]->id);
    CHECK_EVENTUALLY(world.gate.inside() == 1 && unfinished->load() == 2);
    world.gate.release_all();
    CHECK_EVENTUALLY(world.count(Event::Type::done) == 3);
    CHECK_EQUAL(unfinished->load(), 0U);
}

TEST("a lane whose operation was abandoned is replaced when there is work for another") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1, 2);
    auto stuck = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    pool->abandon(*stuck);
    CHECK_EQUAL(world.threads_made.load(), 1U);  // no work, no replacement
    auto next = world.submit(*pool, "quick");
    CHECK_EVENTUALLY(world.done(*next) != nullptr);
    CHECK_EQUAL(world.threads_made.load(), 2U);
    CHECK_EQUAL(pool->state().stuck, 1U);
    CHECK_EQUAL(pool->state().lanes, 2U);
    CHECK_EQUAL(world.extra_lanes.used(), 1U);
    world.gate.release_all();
}

TEST("a lane whose call stalls is replaced at once when operations wait") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1, 1);
    world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    auto waiting = world.submit(*pool, "quick");
    world.clock.advance_us(999'999);
    world.supervisor.scan_once_for_testing();
    CHECK_EQUAL(pool->state().queued, 1U);
    CHECK_EQUAL(world.threads_made.load(), 1U);
    world.clock.advance_us(1);
    world.supervisor.scan_once_for_testing();
    CHECK_EVENTUALLY(world.done(*waiting) != nullptr);
    CHECK_EQUAL(world.threads_made.load(), 2U);
    world.gate.release_all();
}

TEST("a pool has no more than `lanes` and its stuck limit, however many are stuck") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(2, 3);
    for (int i = 0; i < 5; ++i) {
        auto operation = world.submit(*pool, "read");
        CHECK_EVENTUALLY(operation->state_now() == State::running);
        pool->abandon(*operation);
    }
    for (int i = 0; i < 20; ++i) CHECK_EQUAL(pool->abandon(*world.submit(*pool, "read")).state, State::queued);
    CHECK_EQUAL(world.threads_made.load(), 5U);
    CHECK_EQUAL(pool->state().stuck, 5U);
    CHECK_EQUAL(pool->state().queued, 0U);

    auto waiting = world.submit(*pool, "quick");
    CHECK_EQUAL(pool->state().queued, 1U);
    pool->set_stuck_limit(4);  // one more is allowed, and made at once
    CHECK_EVENTUALLY(world.done(*waiting) != nullptr);
    world.gate.release_all();
}

TEST("the process has no more extra lanes than its cap, over all pools") {
    auto& world = LaneWorld::make();
    world.extra_lanes.set_limit(1);
    auto first = world.pool(1, 100);
    auto second = world.pool(1, 100);
    for (auto& pool : {first, second}) {
        auto operation = world.submit(*pool, "read");
        CHECK_EVENTUALLY(operation->state_now() == State::running);
        pool->abandon(*operation);
    }
    auto served = world.submit(*first, "quick");
    CHECK_EVENTUALLY(world.done(*served) != nullptr);
    world.submit(*second, "quick");
    CHECK_EQUAL(second->state().queued, 1U);
    CHECK_EQUAL(world.extra_lanes.used(), 1U);
    world.gate.release_all();
    CHECK_EVENTUALLY(world.extra_lanes.used() == 0);
}

TEST("a stuck lane that comes back goes on when it is needed, and retires when it is not") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1, 1);
    auto first = world.submit(*pool, "read");
    CHECK_EVENTUALLY(first->state_now() == State::running);
    pool->abandon(*first);
    world.gate.release(first->id);
    CHECK_EVENTUALLY(world.done(*first) != nullptr);
    auto next = world.submit(*pool, "quick");
    CHECK_EVENTUALLY(world.done(*next) != nullptr);
    CHECK_EQUAL(pool->state().lanes, 1U);
    CHECK_EQUAL(world.threads_made.load(), 1U);  // it went on

    auto second = world.submit(*pool, "read");
    CHECK_EVENTUALLY(second->state_now() == State::running);
    pool->abandon(*second);
    auto third = world.submit(*pool, "read");
    CHECK_EVENTUALLY(third->state_now() == State::running);
    CHECK_EQUAL(pool->state().lanes, 2U);
    world.gate.release(second->id);
    CHECK_EVENTUALLY(pool->state().lanes == 1);  // it retired: its replacement is busy, and one is enough
    CHECK_EQUAL(world.extra_lanes.used(), 0U);
    world.gate.release_all();
}

TEST("an idle lane that is one too many passes the work it was woken for on to another before it leaves") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(2, 2);
    auto stuck = world.submit(*pool, "twice");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    world.clock.advance_us(1'000'000);
    world.supervisor.scan_once_for_testing();
    CHECK_EQUAL(pool->state().stuck, 1U);
    auto first = world.submit(*pool, "read");
    auto second = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 3);
    world.gate.release(first->id);
    world.gate.release(second->id);
    CHECK_EVENTUALLY(world.done(*first) != nullptr && world.done(*second) != nullptr);
    CHECK_EVENTUALLY(pool->state().running == 1);

    world.gate.release(stuck->id);  // its next call keeps it, but it is not stuck any more: three lanes where two are wanted
    CHECK_EVENTUALLY(pool->state().stuck == 0 && world.gate.inside() == 1);
    auto next = world.submit(*pool, "quick");
    CHECK_EVENTUALLY(world.done(*next) != nullptr);
    CHECK_EQUAL(pool->state().lanes, 2U);
    world.gate.release_all();
}

TEST("a thousand stuck lanes come back, and all but `lanes` retire") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(4, 1'000);
    std::vector<std::shared_ptr<Operation>> operations;
    for (int i = 0; i < 1'000; ++i) {
        operations.push_back(world.submit(*pool, "read"));
        CHECK_EVENTUALLY(operations.back()->state_now() == State::running);
        pool->abandon(*operations.back());
    }
    CHECK_EQUAL(pool->state().stuck, 1'000U);
    std::vector<CallReport> calls;
    pool->stuck_calls(calls);
    CHECK_EQUAL(calls.size(), 1'000U);

    auto healthy = world.submit(*pool, "quick");
    CHECK_EVENTUALLY(world.done(*healthy) != nullptr);
    world.gate.release_all();
    CHECK_EVENTUALLY(world.count(Event::Type::done) == 1'001);
    CHECK_EVENTUALLY(pool->state().lanes <= 4);
    CHECK_EQUAL(pool->state().stuck, 0U);
}

TEST("when no thread can be made and no lane lives, what waits is saturated with the errno") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(2);
    world.no_threads = EAGAIN;
    auto refused = world.submit(*pool, "read");
    CHECK(world.done(*refused) != nullptr);  // at once
    CHECK_EQUAL(refused->result.status, Status::saturated);
    CHECK_EQUAL(refused->result.error, EAGAIN);
    CHECK_EQUAL(pool->state().lanes, 0U);

    world.no_threads = 0;
    auto served = world.submit(*pool, "quick");
    CHECK_EVENTUALLY(world.done(*served) != nullptr);
    CHECK_EQUAL(served->result.status, Status::ok);
}

TEST("when no thread can be made but a lane lives, what waits is left to it") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(2);
    auto first = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    world.no_threads = EAGAIN;
    auto second = world.submit(*pool, "quick");
    CHECK(world.done(*second) == nullptr);
    world.gate.release(first->id);
    CHECK_EVENTUALLY(world.done(*second) != nullptr);
    CHECK_EQUAL(second->result.status, Status::ok);
}

TEST("when no thread can be made and every lane is stuck, what waits is saturated") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1, 8);
    auto stuck = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    world.no_threads = ENOMEM;
    pool->abandon(*stuck);
    auto refused = world.submit(*pool, "quick");
    CHECK(world.done(*refused) != nullptr);
    CHECK_EQUAL(refused->result.status, Status::saturated);
    CHECK_EQUAL(refused->result.error, ENOMEM);
    world.gate.release_all();
}

TEST("lanes leave when their pool closes, and a stuck one when it comes back") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(2, 1);
    auto stuck = world.submit(*pool, "read");
    auto quick = world.submit(*pool, "quick");
    CHECK_EVENTUALLY(world.gate.inside() == 1 && world.done(*quick) != nullptr);
    pool->close();
    CHECK_EVENTUALLY(pool->state().lanes == 1);
    world.gate.release_all();
    CHECK_EVENTUALLY(pool->state().lanes == 0);
}
