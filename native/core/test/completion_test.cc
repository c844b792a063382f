// completion_test.cc — nothing is lost, the loop is woken once and in time, by whoever has the news, and the courier keeps its timer.
#include <fcntl.h>
#include <poll.h>

#include <atomic>

#include "bell.h"
#include "completion_queue.h"
#include "operation.h"
#include "test.h"
#include "thread.h"

using namespace kvlane;
using namespace kvlane::test;

namespace {

struct Courier {
    static MonotonicClock& clock() {
        static auto* clock = new MonotonicClock;
        return *clock;
    }
    CompletionQueue queue{clock()};
    std::atomic<int> rings{0};
    std::atomic<bool> ended{false};

    static Courier& make() {
        auto* courier = new Courier;  // never freed: its thread stays in it
        start_detached_thread(
            [](void* self) -> void* {
                Courier& own = *static_cast<Courier*>(self);
                own.queue.run_courier([&own] { ++own.rings; });
                own.ended = true;
                return nullptr;
            },
            courier);
        return *courier;
    }
};

}  // namespace

TEST("the courier rings once, and what arrives before the batch is taken rides along") {
    auto& courier = Courier::make();
    for (int i = 0; i < 100; ++i) courier.queue.push({.type = Event::Type::notice, .text = std::to_string(i)});
    CHECK_EVENTUALLY(courier.rings == 1);
    courier.queue.push({.type = Event::Type::notice, .text = "100"});
    const auto batch = courier.queue.take();
    CHECK_EQUAL(batch.events.size(), 101U);
    for (size_t i = 0; i < batch.events.size(); ++i) CHECK_EQUAL(batch.events[i].text, std::to_string(i));
    CHECK_EQUAL(courier.rings.load(), 1);
    courier.queue.push({.type = Event::Type::notice, .text = "101"});
    CHECK_EVENTUALLY(courier.rings == 2);
}

TEST("news in no hurry waits a little for company, and rides along with news in a hurry") {
    auto& courier = Courier::make();
    const uint64_t began_us = Courier::clock().now_us();
    courier.queue.push({.type = Event::Type::notice}, linger_us);
    CHECK_EVENTUALLY(courier.rings == 1);
    CHECK(Courier::clock().now_us() - began_us >= linger_us);
    CHECK_EQUAL(courier.queue.take().events.size(), 1U);

    courier.queue.push({.type = Event::Type::notice, .text = "first"}, linger_us);
    courier.queue.push({.type = Event::Type::notice, .text = "last"});
    CHECK_EVENTUALLY(courier.rings == 2);
    size_t heard = 0;
    const auto both = [&] { return (heard += courier.queue.take().events.size()) == 2; };
    CHECK_EVENTUALLY(both());

    // A timer that is armed for later does not keep it.
    courier.queue.arm_timer(Courier::clock().now_us() + 60'000'000);
    courier.queue.push({.type = Event::Type::notice}, linger_us);
    CHECK_EVENTUALLY(courier.queue.take().events.size() == 1);
}

TEST("news that may wait long goes with news that may wait less, whichever came first") {
    constexpr uint64_t long_us = 60'000'000;
    auto& courier = Courier::make();
    for (const auto& [first, second] : {std::pair{long_us, linger_us}, {linger_us, long_us}, {long_us, uint64_t{0}}, {uint64_t{0}, long_us}}) {
        const int before = courier.rings;
        courier.queue.push({.type = Event::Type::notice}, first);
        courier.queue.push({.type = Event::Type::notice}, second);
        CHECK_EVENTUALLY(courier.rings > before);
        size_t heard = 0;
        const auto both = [&] { return (heard += courier.queue.take().events.size()) == 2; };
        CHECK_EVENTUALLY(both());
    }
    // Nothing of it is left behind for what comes alone later.
    const int before = courier.rings;
    courier.queue.push({.type = Event::Type::notice}, linger_us);
    CHECK_EVENTUALLY(courier.rings == before + 1);
}

TEST("of a hundred thousand events from four threads none is lost, and each thread's stay in order") {
    auto& courier = Courier::make();
    static CompletionQueue* queue;
    queue = &courier.queue;
    for (uintptr_t thread = 0; thread < 4; ++thread) {
        start_detached_thread(
            [](void* number) -> void* {
                for (uint64_t i = 0; i < 25'000; ++i) {
                    Event event{.type = Event::Type::notice};
                    event.call.pool = static_cast<unsigned>(reinterpret_cast<uintptr_t>(number));
                    event.call.since_us = i;
                    queue->push(std::move(event));
                }
                return nullptr;
            },
            reinterpret_cast<void*>(thread));
    }
    uint64_t next[4] = {};
    size_t heard = 0;
    bool in_order = true;
    const auto drain = [&] {
        for (const Event& event : courier.queue.take().events) {
            in_order = in_order && event.call.since_us == next[event.call.pool]++;
            ++heard;
        }
        return heard == 100'000;
    };
    CHECK_EVENTUALLY(drain());
    CHECK(in_order);
}

TEST("the timer rings at its time or after it, never before, and once") {
    auto& courier = Courier::make();
    for (int round = 0; round < 20; ++round) {
        const int rings_before = courier.rings;
        const uint64_t at_us = Courier::clock().now_us() + 700;
        courier.queue.arm_timer(at_us);
        CHECK_EVENTUALLY(courier.rings == rings_before + 1);
        CHECK(Courier::clock().now_us() >= at_us);
        CHECK(courier.queue.take().timer);
        CHECK(!courier.queue.timer_armed());
        CHECK(!courier.queue.take().timer);
    }
}

TEST("a timer that is armed anew replaces the former, sooner or later") {
    auto& courier = Courier::make();
    courier.queue.arm_timer(Courier::clock().now_us() + 60'000'000);
    courier.queue.arm_timer(Courier::clock().now_us() + 1'000);
    CHECK_EVENTUALLY(courier.rings == 1);
    // Not taken yet, and armed for later: the one that was due is gone.
    courier.queue.arm_timer(Courier::clock().now_us() + 1'000);
    CHECK_EVENTUALLY(courier.queue.take().timer);
    const int rings_before = courier.rings;
    courier.queue.arm_timer(Courier::clock().now_us() + 1'000);
    CHECK_EVENTUALLY(courier.rings > rings_before);
    CHECK_EVENTUALLY(courier.queue.take().timer);
}

TEST("a disarmed timer does not ring") {
    auto& courier = Courier::make();
    courier.queue.arm_timer(Courier::clock().now_us() + 2'000);
    courier.queue.arm_timer(0);
    courier.queue.arm_timer(Courier::clock().now_us() + 4'000);
    CHECK_EVENTUALLY(courier.rings == 1);
    CHECK(courier.queue.take().timer);
    CHECK_EQUAL(courier.rings.load(), 1);
}

TEST("after close nobody is rung, and the courier's thread ends") {
    auto& courier = Courier::make();
    courier.queue.close();
    courier.queue.push({.type = Event::Type::notice, .text = "too late"});
    CHECK_EVENTUALLY(courier.ended);
    CHECK_EQUAL(courier.rings.load(), 0);
}

namespace {

struct Rung {
    const Bell bell;
    CompletionQueue queue{Courier::clock(), &bell};  // and no courier: who has news is on his own
    bool rings() const {
        pollfd ready{bell.fd(), POLLIN, 0};
        return poll(&ready, 1, 0) == 1;
    }
    Event done() const { return {.type = Event::Type::done, .operation = operation}; }
    std::shared_ptr<Operation> operation = std::make_shared<Operation>();
};

}  // namespace

TEST("who has news in a hurry rings the bell himself, and once until it was taken") {
    Rung it;
    CHECK(!it.rings());
    it.queue.push(it.done());
    CHECK(it.rings());
    it.bell.hear();
    it.queue.push(it.done());
    CHECK(!it.rings());
    CHECK_EQUAL(it.queue.take().events.size(), 2U);
    it.queue.push(it.done());
    CHECK(it.rings());
}

TEST("news that may wait rings nothing, until some comes that may not") {
    Rung it;
    it.queue.push(it.done(), linger_within_task_us);
    it.queue.push(it.done(), linger_us);
    CHECK(!it.rings());
    it.queue.push(it.done());
    CHECK(it.rings());
    CHECK_EQUAL(it.queue.take().events.size(), 3U);
}

TEST("news that somebody waits for does not linger, whether it was known before or is said after") {
    Rung before;
    before.operation->awaited = true;
    before.queue.push(before.done(), linger_within_task_us);
    CHECK(before.rings());

    Rung after;
    after.queue.push(after.done(), linger_within_task_us);
    CHECK(!after.rings());
    after.queue.tell_now();
    CHECK(after.rings());
    after.bell.hear();
    after.queue.tell_now();
    CHECK(!after.rings());
    CHECK_EQUAL(after.queue.take().events.size(), 1U);
    after.queue.tell_now();  // nothing lingers
    CHECK(!after.rings());

    auto& courier = Courier::make();  // one without a bell
    courier.queue.push({.type = Event::Type::notice}, 60'000'000);
    courier.queue.tell_now();
    CHECK_EVENTUALLY(courier.rings == 1);
}

TEST("what the last of its task overtook on the way to the queue does not linger either") {
    Rung it;
    it.operation->unfinished = std::make_shared<std::atomic<size_t>>(0);  // both lanes have counted, the last one was told
    it.queue.push(it.done(), linger_within_task_us);
    CHECK(it.rings());

    Rung other;
    other.operation->unfinished = std::make_shared<std::atomic<size_t>>(1);
    other.queue.push(other.done(), linger_within_task_us);
    CHECK(!other.rings());
}
