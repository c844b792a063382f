// aio_engine_test.cc — real lanes on real files: the same on both engines, and what only aio has.
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <new>
#include <set>

#include "../aio.h"
#include "../lane_pool.h"
#include "../monitor.h"
#include "../thread.h"
#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

// A pool with everything around it. Never freed: lanes stay in it.
struct Bench {
    TestStore store;
    MonotonicClock clock;
    CompletionQueue completions{clock};
    Supervisor supervisor{clock};
    ExtraLanes extra_lanes;
    std::shared_ptr<LanePool> pool;
    std::map<uint64_t, std::pair<std::shared_ptr<Operation>, bool>> done;  // id → operation, late
    std::string notice;

    using MakeWork = decltype(PoolWorld::make_work);
    static Bench& make(EngineKind engine, unsigned lanes = 1, MakeWork make_work = make_block_work, const Clock* clock = nullptr) {
        auto* bench = new Bench;
        PoolWorld world{.clock = clock != nullptr ? clock : &bench->clock, .completions = &bench->completions, .supervisor = &bench->supervisor, .extra_lanes = &bench->extra_lanes,
                        .make_work = std::move(make_work), .start_thread = start_detached_thread};
        bench->pool = std::make_shared<LanePool>(world, PoolOptions{.number = 0, .lane_class = LaneClass::load, .lanes = lanes, .engine = engine});
        return *bench;
    }
    std::shared_ptr<Operation> submit(std::shared_ptr<Operation> op) {
        op->state.store(static_cast<uint8_t>(State::queued));  // the fixture makes running ones
        pool->submit({op});
        return op;
    }
    void listen() {
        for (Event& event : completions.take().events) {
            if (event.type == Event::Type::done) done[event.operation->id] = {event.operation, event.late};
            if (event.type == Event::Type::notice) notice = event.text;
        }
    }
    bool is_done(const std::shared_ptr<Operation>& op) {
        listen();
        return done.count(op->id) != 0;
    }
    bool late(const std::shared_ptr<Operation>& op) { return done.at(op->id).second; }
    void finish() {
        pool->close();
        remove_tree(store.root);
    }
};

// A kernel that keeps what it was given until the test lets it go. The transfer itself is made in
// wait(), by the lane's thread: only there do its descriptors mean anything.
class HeldAio final : public AioCalls {
  public:
    int setup(unsigned, aio_context_t& context) override {
        if (refuse_setup.load() != 0) return -refuse_setup.load();
        context = 1;
        return 0;
    }
    int submit(aio_context_t, iocb& request) override {
        std::lock_guard<Monitor> hold(monitor_);
        if (refuse_submit.load() != 0) return -refuse_submit.load();
        held_.push_back(&request);
        return 1;
    }
    int wait(aio_context_t, io_event* events, unsigned count, uint64_t timeout_us) override {
        std::unique_lock<Monitor> hold(monitor_);
        timeouts.insert(timeout_us);
        waits_++;
        const uint64_t until_us = patient && timeout_us > 0 ? UINT64_MAX >> 1 : clock_.now_us() + timeout_us;
        for (;;) {
            unsigned got = 0;
            for (size_t i = 0; i < held_.size() && got < count;) {
                if (!allowed(i)) {
                    i++;
                    continue;
                }
                iocb& request = *held_[i];
                events[got++] = {request.aio_data, reinterpret_cast<uintptr_t>(&request), perform(request), 0};
                held_.erase(held_.begin() + static_cast<ptrdiff_t>(i));
            }
            if (got > 0 || nudged_.erase(gettid()) > 0 || clock_.now_us() >= until_us) return static_cast<int>(got);
            monitor_.wait_until(until_us);
        }
    }
    void nudge(pid_t tid) override { set([&] { nudged_.insert(tid); }); }
    int destroy(aio_context_t) override {
        std::lock_guard<Monitor> hold(monitor_);
        destroyed_with_ = static_cast<int>(held_.size());
        return 0;
    }

    // The first `keep` of what is held stay; all others, also later ones, go through.
    void keep_only_first(size_t keep) { set([&] { kept_.assign(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(keep)), open_ = true; }); }
    void release_all() { set([&] { kept_.clear(), open_ = true; }); }
    size_t held() {
        std::lock_guard<Monitor> hold(monitor_);
        return held_.size();
    }
    int destroyed_with() {
        std::lock_guard<Monitor> hold(monitor_);
        return destroyed_with_;
    }
    unsigned waits() {
        std::lock_guard<Monitor> hold(monitor_);
        return waits_;
    }
    std::atomic<bool> patient{false};  // a wait has no limit
    std::atomic<int> refuse_setup{0};
    std::atomic<int> refuse_submit{0};
    std::set<uint64_t> timeouts;

  private:
    template <typename Change>
    void set(Change&& change) {
        std::lock_guard<Monitor> hold(monitor_);
        change();
        monitor_.wake_all();
    }
    bool allowed(size_t i) const { return open_ && std::find(kept_.begin(), kept_.end(), held_[i]) == kept_.end(); }
    static int64_t perform(const iocb& request) {
        const auto* parts = reinterpret_cast<const iovec*>(request.aio_buf);
        const int fd = static_cast<int>(request.aio_fildes);
        const int count = static_cast<int>(request.aio_nbytes);
        switch (request.aio_lio_opcode) {
            case IOCB_CMD_PREADV: return posix_file_system().preadv(fd, parts, count, request.aio_offset);
            case IOCB_CMD_PWRITEV: return posix_file_system().pwritev(fd, parts, count, request.aio_offset);
            default: return posix_file_system().fsync(fd);
        }
    }

    MonotonicClock clock_;
    Monitor monitor_;
    std::vector<iocb*> held_;
    std::vector<iocb*> kept_;
    std::set<pid_t> nudged_;
    bool open_ = false;
    int destroyed_with_ = -1;
    unsigned waits_ = 0;
};

HeldAio& hold_aio() {
    auto* held = new HeldAio;  // leaked like the lanes that use it
    set_aio_calls_for_testing(held);
    return *held;
}

const EngineKind engines[] = {EngineKind::threads, EngineKind::aio};

}  // namespace

TEST("blocks of awkward lengths go in and come back whole on every engine, many at a time") {
    set_aio_calls_for_testing(nullptr);
    for (const EngineKind engine : engines) {
        Bench& bench = Bench::make(engine, 2);
        const uint64_t lengths[] = {1, 4095, 4096, 4097, 100'000, uint64_t{1} << 20, (uint64_t{1} << 20) + 1};
        std::vector<std::unique_ptr<Memory>> stored;
        std::vector<std::unique_ptr<Memory>> loaded;
        std::vector<std::shared_ptr<Operation>> operations;
        for (int i = 0; i < 42; i++) {
            const uint64_t bytes = lengths[i % 7];
            stored.push_back(std::make_unique<Memory>(bytes));
            loaded.push_back(std::make_unique<Memory>(bytes));
            stored.back()->fill_pattern(static_cast<uint64_t>(i));
            loaded.back()->mark_rest(0xdd);
            const auto op = bench.store.store("aa" + std::to_string(100 + i), *stored.back());
            op->durable = i % 20 == 0;
            operations.push_back(bench.submit(op));
        }
        for (const auto& op : operations) {
            CHECK_EVENTUALLY(bench.is_done(op));
            CHECK(op->result.status == Status::ok && op->result.uncached);
        }
        operations.clear();
        for (size_t i = 0; i < stored.size(); i++) operations.push_back(bench.submit(bench.store.load("aa" + std::to_string(100 + i), *loaded[i])));
        for (size_t i = 0; i < stored.size(); i++) {
            CHECK_EVENTUALLY(bench.is_done(operations[i]));
            CHECK(operations[i]->result.status == Status::ok && operations[i]->result.uncached);
            CHECK(loaded[i]->equals(*stored[i]) && loaded[i]->untouched(0xdd));
        }
        CHECK(bench.pool->engine() == engine);
        CHECK(bench.store.leftovers().empty());
        bench.finish();
    }
}

TEST("damage, absence, other lengths, look-ups, removes and probes answer the same on every engine") {
    set_aio_calls_for_testing(nullptr);
    for (const EngineKind engine : engines) {
        Bench& bench = Bench::make(engine);
        TestStore& store = bench.store;
        Memory memory(10'000);
        memory.fill_pattern(1);
        const auto outcome = [&](std::shared_ptr<Operation> op) {
            bench.submit(op);
            CHECK_EVENTUALLY(bench.is_done(op));
            return op->result.status;
        };
        CHECK(outcome(store.load("aa01", memory)) == Status::not_found);
        CHECK(outcome(store.store("aa01", memory)) == Status::ok);
        Memory shorter(5'000);
        const auto other_length = store.load("aa01", shorter);
        CHECK(outcome(other_length) == Status::length_mismatch && other_length->result.stored_bytes == 10'000);
        std::string file = TestStore::contents(store.path("aa01"));
        file[9'000] = static_cast<char>(file[9'000] ^ 1);
        TestStore::write_file(store.path("aa01"), file);
        const auto damaged = store.load("aa01", memory);
        CHECK(outcome(damaged) == Status::corrupt && damaged->result.aside_inode != 0);
        CHECK(outcome(store.aside("aa01", damaged->result.aside_inode)) == Status::ok);
        const auto lookup = store.lookup({"aa01", "aa02"});
        CHECK(outcome(lookup) == Status::ok && lookup->found[0].load() == 1 && lookup->found[1].load() == 1);
        CHECK(outcome(store.store("aa01", memory)) == Status::ok);
        CHECK(outcome(store.remove("aa01")) == Status::ok);
        for (const LaneClass lane_class : {LaneClass::load, LaneClass::store, LaneClass::metadata}) {
            CHECK(outcome(store.operation(Kind::probe, lane_class)) == Status::ok);
        }
        store.mount->set_store_id("00000000000000000000000000000000");
        CHECK(outcome(store.load("aa01", memory)) == Status::wrong_store);
        bench.finish();
    }
}

TEST("one aio lane has a batch in the kernel, and one that does not come back keeps its seat only") {
    set_aio_calls_for_testing(nullptr);
    HeldAio& aio = hold_aio();
    aio.release_all();
    Bench& bench = Bench::make(EngineKind::aio);
    std::vector<std::unique_ptr<Memory>> memories;
    for (int i = 0; i < 10; i++) {
        memories.push_back(std::make_unique<Memory>(10'000));
        memories.back()->fill_pattern(static_cast<uint64_t>(i));
        const auto op = bench.submit(bench.store.store("aa" + std::to_string(10 + i), *memories.back()));
        CHECK_EVENTUALLY(bench.is_done(op));
    }
    HeldAio& held = hold_aio();
    Bench& loads = Bench::make(EngineKind::aio);
    loads.store.mount = bench.store.mount;
    std::vector<std::shared_ptr<Operation>> operations;
    for (int i = 0; i < 10; i++) {
        memories[static_cast<size_t>(i)]->fill(0);
        operations.push_back(loads.submit(loads.store.load("aa" + std::to_string(10 + i), *memories[static_cast<size_t>(i)])));
    }
    CHECK_EVENTUALLY(held.held() == aio_seats);
    CHECK_EQUAL(loads.pool->state().queued, 2U);
    const Abandoned abandoned = loads.pool->abandon(*operations[0]);
    CHECK(abandoned.state == State::running && abandoned.phase == Phase::read);
    std::vector<CallReport> calls;
    loads.pool->stuck_calls(calls);
    CHECK(calls.size() == 1 && calls[0].call == Syscall::io_getevents);

    held.keep_only_first(1);
    for (size_t i = 1; i < operations.size(); i++) {
        CHECK_EVENTUALLY(loads.is_done(operations[i]));
        CHECK(operations[i]->result.status == Status::ok && !loads.late(operations[i]));
    }
    CHECK(!loads.is_done(operations[0]));
    CHECK_EQUAL(loads.pool->state().stuck, 0U);

    held.release_all();
    CHECK_EVENTUALLY(loads.is_done(operations[0]));
    CHECK(loads.late(operations[0]));
    loads.pool->close();
    CHECK_EVENTUALLY(held.destroyed_with() >= 0);
    CHECK_EQUAL(held.destroyed_with(), 0);
    remove_tree(loads.store.root);
    bench.finish();
}

TEST("a store given up while the kernel has its write never appears, and leaves nothing behind") {
    HeldAio& aio = hold_aio();
    Bench& bench = Bench::make(EngineKind::aio);
    Memory memory(10'000);
    memory.fill_pattern(1);
    const auto op = bench.submit(bench.store.store("aa01", memory));
    CHECK_EVENTUALLY(aio.held() == 1);
    CHECK(bench.pool->abandon(*op).state == State::running);
    aio.release_all();
    CHECK_EVENTUALLY(bench.is_done(op));
    CHECK(bench.late(op) && op->result.status == Status::expired);
    CHECK(!std::filesystem::exists(bench.store.path("aa01")));
    CHECK(bench.store.leftovers().empty());
    bench.finish();
}

TEST("a lane whose operations are all stuck waits long, and does not leave while the kernel has them") {
    HeldAio& aio = hold_aio();
    Bench& bench = Bench::make(EngineKind::aio);
    Memory memory(4096);
    std::vector<std::shared_ptr<Operation>> operations;
    for (unsigned i = 0; i < aio_seats; i++) operations.push_back(bench.submit(bench.store.store("aa" + std::to_string(10 + i), memory)));
    CHECK_EVENTUALLY(aio.held() == aio_seats);
    for (const auto& op : operations) bench.pool->abandon(*op);
    CHECK_EQUAL(bench.pool->state().stuck, 1U);
    CHECK(aio.waits() <= 2 * aio_seats);  // one for each that came, and the one that lasts
    bench.pool->close();
    CHECK(aio.destroyed_with() == -1);
    aio.release_all();
    CHECK_EVENTUALLY(aio.destroyed_with() == 0);
    for (const auto& op : operations) CHECK_EVENTUALLY(bench.is_done(op));
    CHECK(*aio.timeouts.rbegin() >= 100'000);
    bench.finish();
}

TEST("new work wakes a lane that waits for what is stuck, and is begun at once") {
    HeldAio& aio = hold_aio();
    aio.patient = true;
    Bench& bench = Bench::make(EngineKind::aio);
    Memory memory(4096);
    std::vector<std::shared_ptr<Operation>> operations;
    for (unsigned i = 0; i < aio_seats; i++) {
        operations.push_back(bench.submit(bench.store.store("aa" + std::to_string(10 + i), memory)));
        CHECK_EVENTUALLY(aio.held() == i + 1);
    }
    aio.release_all();
    for (const auto& op : operations) CHECK_EVENTUALLY(bench.is_done(op));
    bench.finish();
}

TEST("a nudge ends the wait of a lane in the kernel, also one that comes just before it") {
    struct Waiter {
        std::atomic<pid_t> tid{0};
        std::atomic<unsigned> ended{0};
    };
    auto* waiter = new Waiter;
    CHECK_EQUAL(start_detached_thread([](void* argument) -> void* {
        auto& own = *static_cast<Waiter*>(argument);
        aio_context_t context = 0;
        if (kernel_aio().setup(1, context) < 0) return nullptr;
        own.tid = gettid();
        io_event event;
        for (int i = 0; i < 3; i++) own.ended += kernel_aio().wait(context, &event, 1, 3'600'000'000) == 0 ? 1 : 0;
        kernel_aio().destroy(context);
        return nullptr;
    }, waiter), 0);
    CHECK_EVENTUALLY(waiter->tid != 0);
    for (unsigned i = 1; i <= 3; i++) {
        kernel_aio().nudge(waiter->tid);  // whether it waits already or not
        CHECK_EVENTUALLY(waiter->ended == i);
    }
}

TEST("the time a lane was away in other seats' calls passes for nobody's latency") {
    HeldAio& aio = hold_aio();
    auto* clock = new ManualClock;
    // One transfer; "slow" is in a call of the lane's own for 300 ms before, as an open can be..
    class Reading final : public BlockWork {
      public:
        Reading(std::shared_ptr<Operation> operation, HeldAio& held, ManualClock& time) : operation_(std::move(operation)), held_(held), time_(time) {}
        std::optional<Transfer> start(LaneContext& lane) override {
            if (operation_->hex == "slow") {
                held_.release_all();
                time_.advance_us(300'000);
            }
            Root* root = nullptr;
            static_cast<void>(lane.open_root(*operation_, root));
            Transfer transfer;
            transfer.fd = fd_ = lane.open(*operation_, root->fd, "kvlane.json", O_RDONLY);
            transfer.parts[0] = {lane.header_page(), page_bytes};
            transfer.part_count = 1;
            return transfer;
        }
        std::optional<Transfer> resume(LaneContext& lane, int64_t) override {
            lane.close(*operation_, fd_);
            return std::nullopt;
        }

      private:
        const std::shared_ptr<Operation> operation_;
        HeldAio& held_;
        ManualClock& time_;
        int fd_ = -1;
    };
    Bench& bench = Bench::make(EngineKind::aio, 1, [&aio, clock](std::shared_ptr<Operation> op) { return std::make_unique<Reading>(std::move(op), aio, *clock); }, clock);
    const auto submit = [&](const char* what) {
        const auto op = bench.store.operation(Kind::remove);
        op->hex = what;
        op->deadline_us = 0;
        return bench.submit(op);
    };
    const auto first = submit("plain");
    CHECK_EVENTUALLY(aio.held() == 1 && aio.waits() > 0);
    const auto slow = submit("slow");
    CHECK_EVENTUALLY(bench.is_done(first) && bench.is_done(slow));
    CHECK(!first->result.kernel_us_known && first->result.kernel_us >= 300'000);
    CHECK(slow->result.kernel_us_known && slow->result.kernel_us < 300'000);
    bench.finish();
}

TEST("without an aio context the pool says so, names the limit, and goes on with threads") {
    HeldAio& aio = hold_aio();
    aio.refuse_setup = EAGAIN;
    Bench& bench = Bench::make(EngineKind::aio);
    Memory memory(4096);
    const auto op = bench.submit(bench.store.store("aa01", memory));
    CHECK_EVENTUALLY(bench.is_done(op));
    CHECK(op->result.status == Status::ok);
    CHECK(bench.pool->engine() == EngineKind::threads);
    CHECK(bench.notice.find("fs.aio-max-nr") != std::string::npos && bench.notice.find("fs.aio-nr") != std::string::npos);
    bench.finish();
}

TEST("a work that runs out of memory half-way keeps no descriptor, and its lane goes on") {
    set_aio_calls_for_testing(nullptr);
    // Opens three, closes one of them, says which numbers it got, and breaks: in start, or after a transfer.
    class Breaking final : public BlockWork {
      public:
        Breaking(std::shared_ptr<Operation> operation, std::string file) : operation_(std::move(operation)), file_(std::move(file)) {}
        std::optional<Transfer> start(LaneContext& lane) override {
            const int root = lane.open_root_by_path(*operation_, "/");
            const int directory = lane.open(*operation_, root, file_.substr(1, file_.rfind('/') - 1).c_str(), O_PATH | O_DIRECTORY);
            const int fd = lane.open(*operation_, root, file_.c_str() + 1, O_RDONLY);
            lane.close(*operation_, directory);
            operation_->result.text = std::to_string(root) + " " + std::to_string(directory) + " " + std::to_string(fd);
            if (operation_->hex == "start") throw std::bad_alloc();
            Transfer transfer;
            transfer.fd = fd;
            transfer.parts[0] = {lane.header_page(), page_bytes};
            transfer.part_count = 1;
            return transfer;
        }
        std::optional<Transfer> resume(LaneContext&, int64_t) override { throw std::bad_alloc(); }

      private:
        const std::shared_ptr<Operation> operation_;
        const std::string file_;
    };
    for (const EngineKind engine : engines) {
        std::string file;
        Bench& bench = Bench::make(engine, 1, [&file](std::shared_ptr<Operation> op) { return std::make_unique<Breaking>(std::move(op), file); });
        file = bench.store.root + "/kvlane.json";
        std::set<std::string> numbers;
        for (const char* where : {"start", "resume", "start", "resume"}) {
            const auto op = bench.store.operation(Kind::remove);
            op->hex = where;
            bench.submit(op);
            CHECK_EVENTUALLY(bench.is_done(op));
            CHECK(op->result.status == Status::io_error && op->result.error == ENOMEM);
            numbers.insert(op->result.text);
        }
        CHECK_EQUAL(numbers.size(), 1U);  // the same numbers each time: they were free again
        CHECK(numbers.begin()->find('-') == std::string::npos);
        bench.finish();
    }
}

TEST("what the kernel does not take asynchronously is done the ordinary way") {
    HeldAio& aio = hold_aio();
    aio.refuse_submit = EINVAL;
    Bench& bench = Bench::make(EngineKind::aio);
    Memory memory(4096);
    const auto op = bench.store.store("aa01", memory);
    op->durable = true;
    bench.submit(op);
    CHECK_EVENTUALLY(bench.is_done(op));
    CHECK(op->result.status == Status::ok);
    CHECK(std::filesystem::exists(bench.store.path("aa01")));
    bench.finish();
    set_aio_calls_for_testing(nullptr);
}
