// lane_test.cc — what an operation and its lane owe each other.
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>

#include "lane_world.h"
#include "test.h"

using namespace kvlane;
using namespace kvlane::test;

namespace {

std::string status_line(pid_t tid, const std::string& field) {
    std::ifstream status("/proc/self/task/" + std::to_string(tid) + "/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with(field + ":")) return line.substr(line.find_first_not_of(" \t", field.size() + 1));
    }
    return "";
}

unsigned descriptors(pid_t tid) {
    unsigned count = 0;
    DIR* directory = opendir(("/proc/self/task/" + std::to_string(tid) + "/fd").c_str());
    while (const dirent* entry = directory == nullptr ? nullptr : readdir(directory)) count += entry->d_name[0] != '.' ? 1 : 0;
    if (directory != nullptr) closedir(directory);
    return count;
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
uint64_t resident_kib() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("RssAnon:")) return std::stoull(line.substr(line.find_first_not_of(" \t", 8)));
    }
    return 0;
}
#endif

}  // namespace

TEST("an operation is queued, running, done, and heard of once") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto read = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    CHECK_EQUAL(read->state_now(), State::running);
    CHECK(world.done(*read) == nullptr);

    world.gate.release(read->id);
    CHECK_EVENTUALLY(world.done(*read) != nullptr);
    CHECK_EQUAL(read->state_now(), State::done);
    CHECK(!world.done(*read)->late);
    CHECK_EQUAL(world.count(Event::Type::done), 1U);
}

TEST("the one descriptor that a thread takes along is the same one still, and the only one") {
    struct Leaver {
        int kept;
        std::atomic<int> left{-1};
        std::atomic<unsigned> has{0};
        std::atomic<bool> written{false};
    };
    for (const bool low : {true, false}) {
        int ends[2];
        CHECK_EQUAL(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        const int kept = low ? ends[1] : fcntl(ends[1], F_DUPFD_CLOEXEC, 200);
        auto& leaver = *new Leaver{kept};
        start_detached_thread(
            [](void* argument) -> void* {
                auto& self = *static_cast<Leaver*>(argument);
                const int left = leave_descriptor_table(self.kept);
                self.written = write(self.kept, "x", 1) == 1;
                self.has = descriptors(gettid()) - 1;  // the listing's own
                self.left = left;
                return nullptr;
            },
            &leaver);
        CHECK_EVENTUALLY(leaver.left == 0);
        CHECK(leaver.written);
#ifdef KVLANE_KEEP_STDIO
        CHECK_EQUAL(leaver.has.load(), 4U);
#else
        CHECK_EQUAL(leaver.has.load(), 1U);
#endif
        char got = 0;
        CHECK_EQUAL(read(ends[0], &got, 1), 1);
        CHECK_EQUAL(got, 'x');
        close(ends[0]);
        close(ends[1]);
        if (!low) close(kept);
    }
}

TEST("a lane has a name, no signals, and none of the process's descriptors") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1, 0, LaneClass::store);
    const int pipe_like = open("/dev/null", O_RDONLY | O_CLOEXEC);
    auto read = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    pool->abandon(*read);  // so that stuck_calls names its thread
    std::vector<CallReport> calls;
    pool->stuck_calls(calls);
    CHECK_EQUAL(calls.size(), 1U);
    CHECK_EQUAL(status_line(calls[0].tid, "Name"), std::string("kv-store-0"));
    // All but SIGKILL, SIGSTOP and the two that glibc keeps for itself.
    CHECK_EQUAL(status_line(calls[0].tid, "SigBlk"), std::string("fffffffe7ffbfeff"));
    sigset_t own;
    pthread_sigmask(SIG_SETMASK, nullptr, &own);
    CHECK_EQUAL(sigismember(&own, SIGTERM), 0);  // starting lanes left ours alone
#ifdef KVLANE_KEEP_STDIO
    CHECK(descriptors(calls[0].tid) <= 3);
#else
    CHECK_EQUAL(descriptors(calls[0].tid), 0U);
#endif
    CHECK(fcntl(pipe_like, F_GETFD) >= 0);  // ours is still open
    close(pipe_like);
    world.gate.release_all();
}

TEST("an operation past its deadline is completed as expired, and no call is made for it") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto first = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    auto second = world.submit(*pool, "read", world.clock.now_us() + 500);
    world.clock.advance_us(500);
    world.gate.release(first->id);
    CHECK_EVENTUALLY(world.done(*second) != nullptr);
    CHECK_EQUAL(second->result.status, Status::expired);
    CHECK_EQUAL(second->result.phase, Phase::queue);
    CHECK_EQUAL(world.gate.inside(), 0U);
}

TEST("an operation abandoned in the queue is dropped and never heard of again") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto first = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    auto second = world.submit(*pool, "read");
    auto third = world.submit(*pool, "quick");
    std::weak_ptr<Operation> watched = second;
    CHECK_EQUAL(pool->abandon(*second).state, State::queued);
    second.reset();
    CHECK(watched.expired());  // nothing keeps it: its memory is free at once
    CHECK_EQUAL(pool->state().queued, 1U);
    world.gate.release(first->id);
    CHECK_EVENTUALLY(world.done(*third) != nullptr);
    CHECK_EQUAL(world.count(Event::Type::done), 2U);
}

TEST("an operation is withdrawn from the queue only: one that a lane took up goes on as if nobody had asked") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto first = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    auto second = world.submit(*pool, "read");
    CHECK(pool->withdraw(*second));
    CHECK(!pool->withdraw(*second));
    CHECK_EQUAL(pool->state().queued, 0U);
    CHECK(!pool->withdraw(*first));
    CHECK_EQUAL(pool->state().running, 1U);
    world.gate.release(first->id);
    CHECK_EVENTUALLY(world.done(*first) != nullptr);
    CHECK(!first->abandoned());
    CHECK(!pool->withdraw(*first));
    CHECK_EQUAL(world.count(Event::Type::done), 1U);
}

TEST("an operation abandoned while running says where it is, and comes back late") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto read = world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    const uint64_t entered_us = world.clock.now_us();
    world.clock.advance_us(700);
    const Abandoned where = pool->abandon(*read);
    CHECK_EQUAL(where.state, State::running);
    CHECK_EQUAL(where.phase, Phase::read);
    CHECK_EQUAL(where.since_us, entered_us);
    CHECK_EQUAL(pool->abandon(*read).state, State::running);  // again: the same
    CHECK_EQUAL(pool->state().stuck, 1U);
    CHECK_EQUAL(pool->state().running, 0U);

    std::weak_ptr<Operation> watched = read;
    const uint64_t id = read->id;
    CHECK(world.done(*read) == nullptr);
    read.reset();
    world.gate.release(id);
    CHECK_EVENTUALLY(world.count(Event::Type::done) == 1);
    CHECK(world.heard.back().late);
    CHECK_EQUAL(pool->state().stuck, 0U);
    world.heard.clear();
    CHECK_EVENTUALLY(watched.expired());  // the event was the last that held it
}

TEST("an operation abandoned between two calls starts no further one") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto compute = world.submit(*pool, "compute");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    CHECK_EQUAL(pool->abandon(*compute).state, State::running);
    CHECK(!compute->may_start_call(world.clock.now_us()));
    CHECK(!compute->begin_commit());
    world.gate.release(compute->id);
    CHECK_EVENTUALLY(world.done(*compute) != nullptr);
    CHECK(world.done(*compute)->late);
}

TEST("an operation abandoned while its name changes says so") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto rename = world.submit(*pool, "rename");
    CHECK_EVENTUALLY(world.gate.inside() == 1);
    const Abandoned where = pool->abandon(*rename);
    CHECK_EQUAL(where.state, State::committing);
    CHECK_EQUAL(where.phase, Phase::rename);
    world.gate.release(rename->id);
    CHECK_EVENTUALLY(world.done(*rename) != nullptr);
    CHECK(world.done(*rename)->late);
}

TEST("an operation abandoned when it is done keeps its ordinary completion") {
    auto& world = LaneWorld::make();
    auto pool = world.pool(1);
    auto quick = world.submit(*pool, "quick");
    CHECK_EVENTUALLY(quick->state_now() == State::done);
    CHECK_EQUAL(pool->abandon(*quick).state, State::done);
    CHECK_EVENTUALLY(world.done(*quick) != nullptr);
    CHECK(!world.done(*quick)->late);
}

TEST("a rename and a deadline never both win") {
    for (int round = 0; round < 300; ++round) {
        Operation operation;
        operation.begin_running();
        struct Race {
            Operation* operation;
            std::atomic<int> go{0};
            std::atomic<int> committed{-1};
        } race{&operation};
        start_detached_thread(
            [](void* argument) -> void* {
                Race& own = *static_cast<Race*>(argument);
                own.go.store(1);
                own.committed.store(own.operation->begin_commit() ? 1 : 0);
                return nullptr;
            },
            &race);
        while (race.go.load() == 0) sched_yield();
        const State state = operation.abandon();
        while (race.committed.load() < 0) sched_yield();
        if ((state == State::committing) != (race.committed.load() == 1)) {
            CHECK_EQUAL(state, race.committed.load() == 1 ? State::committing : State::running);
            break;
        }
    }
}

TEST("every name of an enumeration is a word of its own") {
    CHECK_EQUAL(std::string(phase_name(Phase::close)), std::string("close"));
    CHECK_EQUAL(std::string(syscall_name(Syscall::write)), std::string("write"));
    CHECK_EQUAL(std::string(kind_name(Kind::name_space)), std::string("namespace"));
    CHECK_EQUAL(std::string(status_name(Status::saturated)), std::string("saturated"));
}

TEST("a watch word gives back what was put in, also after ten years of uptime less one") {
    WatchWord word;
    const uint64_t late_us = (1ULL << 48) - 1;
    word.enter(Phase::close, Syscall::write, late_us);
    const auto call = word.read();
    CHECK_EQUAL(call.phase, Phase::close);
    CHECK_EQUAL(call.call, Syscall::write);
    CHECK_EQUAL(call.since_us, late_us);
    CHECK(word.mark_reported(call));
    CHECK(!word.mark_reported(word.read()));  // once per call
    CHECK(word.read().reported);
    word.leave();
    CHECK(!word.read().inside());
    CHECK_EQUAL(word.read().phase, Phase::close);
    CHECK(!word.mark_reported(call));  // that call is over
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST("a lane that is stuck in a read holds two pages of its stack, the page that it reads to, and little beside") {
    if (sysconf(_SC_PAGESIZE) != 4096 && skipped("memory pages of another size")) return;
    constexpr unsigned lanes = 400;  // many, for the pages that they share
    auto& world = LaneWorld::make();
    auto pool = world.pool(lanes);
    const uint64_t before_kib = resident_kib();
    for (unsigned i = 0; i < lanes; i++) world.submit(*pool, "read");
    CHECK_EVENTUALLY(world.gate.inside() == lanes);
    const uint64_t each_bytes = (resident_kib() - before_kib) * 1024 / lanes;
    if (each_bytes > 3 * 4096 + 3072) fail(__FILE__, __LINE__, "a stuck lane and its operation hold " + std::to_string(each_bytes) + " bytes");
    world.gate.release_all();
}
#endif
