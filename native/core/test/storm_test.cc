// storm_test.cc — thousands of operations on real lanes over a kernel that fails, shortens, holds and lies.
//
// Blocks say whose they are: eight bytes of key and version, and the rest follows from them. Memory is closed (PROT_NONE)
// the moment its operation's completion is told, so that whoever still uses it is caught, the kernel too.
// KVLANE_STORM=ROUNDS makes that many storms of other seeds; a seed that failed is run again by KVLANE_STORM_SEED.
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <unordered_map>

#include "../lane_pool.h"
#include "../paths.h"
#include "../thread.h"
#include "block_fixture.h"
#include "lying_kernel.h"
#include "test.h"

using namespace kvlane;
using namespace kvlane::test;

namespace {

constexpr unsigned keys = 24;
constexpr unsigned outstanding_max = 48;
constexpr uint64_t lengths[] = {5'000, 8'192, 20'000};
constexpr size_t violations_shown_max = 5;

std::string hex_of(unsigned key) {
    char text[16];
    std::snprintf(text, sizeof text, "%02x0000%02x", key % 4, key);
    text[7] = key % 2 == 0 ? '1' : '2';  // each has a neighbour that differs in the last digit
    text[6] = "0123456789abcdef"[key / 2 % 16];
    return text;
}

// Eight bytes say which: the key above, the version below.
void write_block(Memory& memory, unsigned key, uint64_t version) {
    const uint64_t name = uint64_t{key} << 40 | version;
    memory.fill_pattern(name);
    std::memcpy(memory.data(), &name, sizeof name);
}
bool is_block_of(const Memory& memory, unsigned key) {
    uint64_t name = 0;
    std::memcpy(&name, memory.data(), sizeof name);
    if (name >> 40 != key) return false;
    Memory wanted(memory.bytes());
    write_block(wanted, key, name & 0xff'ffff'ffffU);
    return memory.equals(wanted);
}
uint64_t version_in(const Memory& memory) {
    uint64_t name = 0;
    std::memcpy(&name, memory.data(), sizeof name);
    return name & 0xff'ffff'ffffU;
}

struct Asked {
    std::shared_ptr<Operation> operation;
    std::unique_ptr<Memory> memory;
    unsigned key = 0;
    uint64_t version = 0;       // of a store
    bool abandoned = false;     // while it ran: its completion comes late
    unsigned completions = 0;
    uint64_t bytes_after = 0;   // a checksum of its memory when it was given back
};

struct Storm {
    Storm(EngineKind engine, uint64_t seed, Planted planted_given) : planted(planted_given), kernel(seed, planted_given), random(seed) {
        store.mount->recycle.set_limits({.files = 16, .bytes = 1 << 20, .rest_us = 500});
        extra_lanes.set_limit(10'000);
        unsigned number = 0;
        for (const LaneClass lane_class : {LaneClass::load, LaneClass::store, LaneClass::metadata}) {
            PoolWorld world{.clock = &clock, .completions = &completions, .supervisor = &supervisor, .extra_lanes = &extra_lanes,
                            .make_work = [this](std::shared_ptr<Operation> operation) { return kernel.watched(std::move(operation)); },
                            .start_thread = start_detached_thread};
            pools.push_back(std::make_shared<LanePool>(world, PoolOptions{.number = number++, .lane_class = lane_class, .lanes = 3, .engine = engine}));
            pools.back()->set_stuck_limit(1'000);
        }
    }

    void violation(const std::string& what) { found.push_back(what); }
    std::string described(const Asked& asked) const {
        static constexpr const char* moods[] = {"an honest", "a mild", "a failing", "a lying"};
        const Operation& op = *asked.operation;
        return std::string(kind_name(op.kind)) + " " + std::to_string(op.id) + " of " + op.hex + " over " + moods[static_cast<size_t>(kernel.mood_of(op.id))] +
               " kernel: " + status_name(op.result.status) + " (errno " + std::to_string(op.result.error) + ", " + phase_name(op.result.phase) + ", " + op.result.text + ")";
    }

    uint64_t any(uint64_t below) { return random() % below; }

    void submit_one() {
        Asked asked;
        asked.key = static_cast<unsigned>(any(keys));
        const uint64_t what = any(20);
        const uint64_t bytes = any(20) == 0 ? lengths[any(3)] : lengths[asked.key % 3];
        const std::string hex = hex_of(asked.key);
        size_t pool = 0;
        if (what < 9) {
            asked.memory = std::make_unique<Memory>(bytes);
            asked.operation = store.load(hex, *asked.memory);
        } else if (what < 16) {
            asked.memory = std::make_unique<Memory>(bytes);
            asked.version = ++version;
            write_block(*asked.memory, asked.key, asked.version);
            asked.operation = store.store(hex, *asked.memory, any(2) == 0);
            asked.operation->durable = any(16) == 0;
            pool = 1;
        } else if (what < 19) {
            asked.operation = store.remove(hex);
            pool = 2;
        } else {
            std::vector<std::string> names;
            for (unsigned i = 0; i < 8; i++) names.push_back(hex_of(static_cast<unsigned>(any(keys))));
            asked.operation = store.lookup(names);
            asked.operation->hex = hex;
            pool = 2;
        }
        Operation& op = *asked.operation;
        op.state.store(static_cast<uint8_t>(State::queued));
        op.id = ++submitted;  // not the fixture's: a storm is the same whatever ran before it
        if (any(planted == Planted::late_name ? 3 : 30) == 0) op.deadline_us = clock.now_us() + any(2'000);
        wait_for.push_back(op.id);
        all.emplace(op.id, std::move(asked));
        pools[pool]->submit({all.at(op.id).operation});
        pool_of[op.id] = pool;
    }

    void give_up(uint64_t id) {
        Asked& asked = all.at(id);
        if (asked.completions > 0 || asked.abandoned) return;
        const Abandoned answer = pools[pool_of.at(id)]->abandon(*asked.operation);
        if (answer.state == State::queued) {
            asked.completions = 1;  // nobody will hear of it
            came_to_nothing.insert(asked.version);
            give_back(asked);
        } else if (answer.state != State::done) {
            asked.abandoned = true;
            if (planted == Planted::memory_given_early) give_back(asked);
        }
    }

    // Whoever touches it now is wrong.
    void give_back(Asked& asked) {
        if (asked.memory == nullptr) return;
        kernel.given_back(asked.memory->data());
        if (planted == Planted::memory_given_early) return;  // the storm is to go on
        asked.bytes_after = xxh3(asked.memory->data(), asked.memory->bytes());
        ::mprotect(asked.memory->data(), padded(asked.memory->bytes()), PROT_NONE);
    }

    void listen() {
        for (Event& event : completions.take().events) {
            if (event.type != Event::Type::done) continue;
            Asked& asked = all.at(event.operation->id);
            if (++asked.completions > 1 || (planted == Planted::second_completion && event.operation->id == 77)) {
                violation(described(asked) + " was completed twice");
                continue;
            }
            if (event.late != asked.abandoned) violation(described(asked) + (event.late ? " came late, but nobody gave it up" : " was given up, but did not come late"));
            judge(asked);
            if (planted != Planted::memory_given_early || !asked.abandoned) give_back(asked);
        }
        std::erase_if(wait_for, [&](uint64_t id) { return all.at(id).completions > 0; });
    }

    void judge(const Asked& asked) {
        const Operation& op = *asked.operation;
        const Result& result = op.result;
        const bool timed = op.deadline_us != 0 || asked.abandoned;
        const Mood mood = kernel.mood_of(op.id);
        if (result.status == Status::expired && !timed) violation(described(asked) + ", and had all the time");
        if (result.status == Status::saturated || result.status == Status::newer_format) violation(described(asked));
        if (op.kind == Kind::load && result.status == Status::ok && !is_block_of(*asked.memory, asked.key)) {
            violation(described(asked) + ", and the bytes are wrong");
        }
        if (result.error != 0 && result.status == Status::ok) violation(described(asked) + ": ok with an errno");
        if (op.kind == Kind::load && result.status == Status::ok) visible.insert(version_in(*asked.memory));
        // (Forced out is also the directory, when the name has changed already.)
        if (op.kind == Kind::store && result.status == Status::expired && result.phase != Phase::fsync) came_to_nothing.insert(asked.version);
        const bool damaged = kernel.tainted(op.hex);
        if (op.kind == Kind::load && result.status == Status::corrupt && mood == Mood::failing && !damaged) violation(described(asked) + ", and nobody lied");
        if (timed || mood == Mood::lying || mood == Mood::failing) return;
        // Nothing stood in its way.
        switch (op.kind) {
            case Kind::load:
                if (result.status == Status::ok || result.status == Status::not_found || result.status == Status::length_mismatch) return;
                if (result.status == Status::corrupt && damaged) return;
                break;
            case Kind::store:
            case Kind::lookup:
                if (result.status == Status::ok) return;
                break;
            default:
                if (result.status == Status::ok || result.status == Status::not_found) return;
                break;
        }
        violation(described(asked) + ", and nothing stood in its way");
    }

    void run(unsigned operations) {
        kernel.start();
        while (submitted < operations) {
            while (wait_for.size() < outstanding_max && submitted < operations) submit_one();
            const uint64_t drawn = any(12);
            if (drawn < 2 && !wait_for.empty()) give_up(wait_for[any(wait_for.size())]);
            if (kernel.inside() > 0 && drawn == 2) {
                // Those that are held are mostly given up first: what comes then comes late.
                for (const uint64_t id : std::vector<uint64_t>(wait_for)) {
                    if (kernel.is_held(id) && any(3) != 0) give_up(id);
                }
                kernel.release();
            }
            listen();
            if (wait_for.size() >= outstanding_max) ::usleep(200);
        }
        const bool came = eventually([&] {
            kernel.release();
            listen();
            return wait_for.empty();
        });
        if (!came) violation(std::to_string(wait_for.size()) + " operations never came back, the first: " + described(all.at(wait_for[0])));
        for (const auto& pool : pools) pool->close();
        const bool left = eventually([&] {
            kernel.release();
            return pools[0]->state().lanes + pools[1]->state().lanes + pools[2]->state().lanes == 0;
        });
        if (!left) violation("lanes did not leave");
        kernel.stop();
        listen();
        look_back();
    }

    void look_back() {
        for (const std::string& what : kernel.violations()) violation(what);
        if (!kernel.open_descriptors().empty()) violation(std::to_string(kernel.open_descriptors().size()) + " descriptors were left open");
        for (auto& [id, asked] : all) {
            if (asked.memory == nullptr || planted == Planted::memory_given_early) continue;
            ::mprotect(asked.memory->data(), padded(asked.memory->bytes()), PROT_READ | PROT_WRITE);
            if (asked.bytes_after != xxh3(asked.memory->data(), asked.memory->bytes())) violation(described(asked) + ": its memory changed after it was given back");
        }
        const auto excused = kernel.excused();
        size_t waiting = 0;
        for (const std::string& name : store.leftovers()) {
            const std::string last = name.substr(name.rfind('/') + 1);
            if (name.find(".tmp") != std::string::npos) {
                if (!excused.contains(last)) violation("left over: " + name);
            } else if (last != writer_name() && !excused.contains(last)) {
                waiting++;  // in recycle/: of these the pool knows
            }
        }
        if (waiting > store.mount->recycle.figures().files) violation(std::to_string(waiting) + " files in recycle/, the pool knows of " + std::to_string(store.mount->recycle.figures().files));
        unsigned there = 0;
        for (unsigned key = 0; key < keys; key++) {
            for (const uint64_t bytes : lengths) {
                Memory memory(bytes);
                const Result result = store.run(store.load(hex_of(key), memory));
                if (result.status == Status::ok && ++there > 0) {
                    if (!is_block_of(memory, key)) violation("wrong bytes are visible under " + hex_of(key));
                    visible.insert(version_in(memory));
                }
                const bool damaged = result.status == Status::corrupt && !kernel.tainted(hex_of(key));
                if (damaged || result.status == Status::io_error) violation("in the end " + hex_of(key) + " is " + status_name(result.status) + ": " + result.text);
            }
        }
        if (there == 0) violation("no block was left to look at");
        for (const uint64_t one : visible) {
            if (came_to_nothing.contains(one)) violation("store number " + std::to_string(one) + " was over before its name changed, and was seen");
        }
        if (planted == Planted::nothing) {
            if (kernel.calls() < submitted || kernel.faults() < submitted / 4 || kernel.held() == 0) violation("hardly anything went wrong: this was no storm");
            if (visible.size() < submitted / 40 || came_to_nothing.size() < submitted / 200) violation("hardly anything was stored and loaded, or given up: this was no storm");
        }
        // And all of it is good for the next.
        for (unsigned key = 0; key < keys; key++) {
            Memory from(5'000), to(5'000);
            write_block(from, key, ++version);
            const bool stored = store.run(store.store(hex_of(key), from, true)).status == Status::ok;
            if (!stored || store.run(store.load(hex_of(key), to)).status != Status::ok || !from.equals(to)) violation("afterwards " + hex_of(key) + " cannot be stored and loaded");
        }
    }

    const Planted planted;
    TestStore store;
    MonotonicClock clock;
    CompletionQueue completions{clock};
    Supervisor supervisor{clock};
    ExtraLanes extra_lanes;
    LyingKernel kernel;
    std::vector<std::shared_ptr<LanePool>> pools;
    std::mt19937_64 random;
    uint64_t version = 0;
    uint64_t submitted = 0;
    std::unordered_map<uint64_t, Asked> all;
    std::unordered_map<uint64_t, size_t> pool_of;
    std::vector<uint64_t> wait_for;
    std::set<uint64_t> visible, came_to_nothing;  // versions that a load has given back, and versions that never may be
    std::vector<std::string> found;
};

// Never freed: where it failed, a lane may still be in it.
std::vector<std::string> storm(EngineKind engine, uint64_t seed, unsigned operations, Planted planted = Planted::nothing) {
    auto* made = new Storm(engine, seed, planted);
    made->run(operations);
    std::fprintf(stderr, "storm: seed %llu, %s, %llu operations, %llu calls, %llu faults, %zu violations\n", static_cast<unsigned long long>(seed), engine_name(engine),
                 static_cast<unsigned long long>(made->submitted), static_cast<unsigned long long>(made->kernel.calls()), static_cast<unsigned long long>(made->kernel.faults()), made->found.size());
    std::vector<std::string> found = made->found;
    if (!found.empty()) std::fprintf(stderr, "storm: the first: %s\n", found[0].c_str());
    remove_tree(made->store.root);
    if (found.empty()) delete made;
    return found;
}

uint64_t number_of(const char* name, uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void storms(EngineKind engine) {
    const uint64_t rounds = number_of("KVLANE_STORM", 1), first = number_of("KVLANE_STORM_SEED", 1);
    for (uint64_t seed = first; seed < first + rounds; seed++) {
        const auto found = storm(engine, seed, 4'000);
        for (size_t i = 0; i < found.size() && i < violations_shown_max; i++) {
            fail(__FILE__, __LINE__, "KVLANE_STORM_SEED=" + std::to_string(seed) + ": " + found[i]);
        }
    }
}

// A seed decides the dice, not how the threads meet: what one storm misses another finds.
constexpr uint64_t finding_seeds_max = 8;

bool finds(Planted planted, const char* part, EngineKind engine = EngineKind::threads) {
    for (uint64_t seed = 7; seed < 7 + finding_seeds_max; seed++) {
        for (const std::string& one : storm(engine, seed, 1'200, planted)) {
            if (one.find(part) != std::string::npos) return true;
        }
    }
    return false;
}

}  // namespace

TEST("storm: over a kernel that fails, shortens, holds and lies, each operation completes once, with the right status and no wrong byte (threads)") {
    storms(EngineKind::threads);
}
TEST("storm: over a kernel that fails, shortens, holds and lies, each operation completes once, with the right status and no wrong byte (aio)") {
    storms(EngineKind::aio);
}

TEST("a read that claims more bytes than were asked for is an input/output error, and nothing behind the buffer is looked at") {
    TestStore store;
    store.files.instead = [](size_t, const std::string& name) { return name == "preadv" ? std::optional<int64_t>(5'000) : std::nullopt; };
    const Result result = store.run(store.lookup({"00"}));
    CHECK_EQUAL(result.status, Status::io_error);
    CHECK_EQUAL(result.error, EIO);
}

TEST("the storm finds stores that share a temporary") { CHECK(finds(Planted::shared_temporary, "nothing stood in its way")); }
TEST("the storm finds a name that changes before its last write") { CHECK(finds(Planted::late_write, "corrupt")); }
TEST("the storm finds a descriptor that is not closed") { CHECK(finds(Planted::descriptor_kept, "left open")); }
TEST("the storm finds a temporary that is not unlinked") { CHECK(finds(Planted::temporary_kept, "left over")); }
TEST("the storm finds memory that is given back before its call has returned") {
    CHECK(finds(Planted::memory_given_early, "given back"));
    CHECK(finds(Planted::memory_given_early, "given back", EngineKind::aio));
}
TEST("the storm finds a completion that comes twice") { CHECK(finds(Planted::second_completion, "twice")); }
TEST("the storm finds a store that appears although its time was over") { CHECK(finds(Planted::late_name, "and was seen")); }
TEST("the storm finds payloads that nobody checks") {
    if (std::getenv("KVLANE_STORM_UNCHECKED") != nullptr) return;
    // In a process of its own: checksums that are off stay off.
    const char* arguments[] = {"core_test", "storm-without-checksums", nullptr};
    std::string flag = "KVLANE_STORM_UNCHECKED=1", directory = "KVLANE_TEST_DIR=";
    directory += std::getenv("KVLANE_TEST_DIR") != nullptr ? std::getenv("KVLANE_TEST_DIR") : "/var/tmp";
    char* environment[] = {flag.data(), directory.data(), nullptr};
    pid_t pid = 0;
    CHECK_EQUAL(posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, const_cast<char**>(arguments), environment), 0);
    int status = 0;
    CHECK_EQUAL(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
TEST("storm-without-checksums: what the test above starts") {
    if (std::getenv("KVLANE_STORM_UNCHECKED") == nullptr) return;
    leave_payloads_unchecked();
    CHECK(finds(Planted::nothing, "the bytes are wrong"));
}
