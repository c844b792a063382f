// recycling_readers_test.cc — loads of files that are being overwritten: whole versions of their own key, or nothing.
#include <atomic>
#include <memory>
#include <thread>

#include "recycling_store.h"

using namespace kvlane;

TEST("a load whose file is overwritten under it finds nothing if its block was removed, and the new block if it was replaced") {
    for (const char* call : {"stat", "preadv"}) {
        for (const bool replaced : {false, true}) {
            RecyclingStore store;
            WatchWord word;
            FakeFileSystem plain;
            LaneContext other(plain, word, store.clock);
            store.put("aa01", 1);
            store.files.forget();
            const auto there = store.seen_by_another();
            const auto run_there = [&](const std::shared_ptr<Operation>& op) {
                op->mount = there;
                return store.run(op, other);
            };
            bool once = false;
            store.files.before = [&](size_t, const std::string& name) {
                if (name != call || std::exchange(once, true)) return;
                Memory memory(payload);
                if (replaced) {
                    memory.fill_pattern(2);
                    run_there(store.store("aa01", memory, true));
                    store.clock.advance_us(rest_us);
                } else {
                    run_there(store.remove("aa01"));
                }
                memory.fill_pattern(3);
                run_there(store.store("bb01", memory));  // over the file that is open
                CHECK(there->recycle.figures().recycled == 1);
            };
            CHECK_EQUAL(store.holds("aa01", 2), replaced ? 1 : 0);
            CHECK(store.holds("bb01", 3) == 1);
            other.close_roots();
        }
    }
}

TEST("while a key is loaded its block is stored and removed within its directory, however long the read is stuck") {
    RecyclingStore store;
    WatchWord word;
    FakeFileSystem plain;
    LaneContext other(plain, word, store.clock);
    store.put("aa01", 1);
    store.put("aa02", 2);
    store.put("bb01", 3);
    store.run(store.remove("bb01"));
    Memory memory(payload);
    const auto stuck = store.load("aa01", memory);
    auto work = make_block_work(stuck);
    auto next = work->start(*store.lane);
    CHECK(next && next->what == Transfer::What::read);
    {
        Memory bytes(payload);
        bytes.fill_pattern(4);
        CHECK(store.run(store.store("aa01", bytes, true), other).status == Status::ok);
        CHECK(store.figures().recycled == 0 && store.figures().kept == 1 && store.in_order());
        CHECK(store.run(store.remove("aa01"), other).status == Status::ok);
        CHECK(store.figures().kept == 1 && store.in_order());
        // Its neighbours go as usual.
        CHECK(store.run(store.store("aa02", bytes, true), other).status == Status::ok);
        CHECK(store.figures().recycled == 1 && store.figures().kept == 2);
    }
    next = work->resume(*store.lane, store.lane->transfer(*stuck, *next));
    CHECK(!next && stuck->result.status == Status::ok);  // what it had open, whole
    work.reset();
    store.put("aa01", 5);
    CHECK(store.run(store.remove("aa01")).status == Status::ok);
    CHECK(store.figures().kept == 3 && store.in_order());
    other.close_roots();
}

TEST("a load that meets an overwritten file twice says not found, and offers nothing to be set aside") {
    RecyclingStore store;
    WatchWord word;
    FakeFileSystem plain;
    LaneContext other(plain, word, store.clock);
    store.put("aa01", 1);
    store.put("bb01", 2);
    store.files.forget();
    const auto there = store.seen_by_another();
    const auto replace_there = [&](const std::string& hex, const Memory& memory) {
        const auto op = store.store(hex, memory, true);
        op->mount = there;
        store.run(op, other);
        store.clock.advance_us(rest_us);
    };
    int reads = 0;
    store.files.before = [&](size_t, const std::string& name) {
        if (name != "preadv") return;
        Memory memory(payload);
        memory.fill_pattern(10U + static_cast<uint64_t>(reads));
        replace_there("aa01", memory);
        replace_there("bb01", memory);
        reads++;
    };
    Memory memory(payload);
    const Result result = store.run(store.load("aa01", memory));
    CHECK_EQUAL(reads, 2);
    CHECK(result.status == Status::not_found && result.aside_inode == 0);
    store.files.forget();
    CHECK(store.holds("aa01", 11) == 1);
    other.close_roots();
}

TEST("nor does one that meets two files which are overwritten half-way, though each contradicts itself") {
    RecyclingStore store;
    WatchWord word;
    FakeFileSystem plain;
    LaneContext other(plain, word, store.clock);
    store.put("aa01", 1);
    store.files.forget();
    const auto there = store.seen_by_another();
    int reads = 0;
    store.files.before = [&](size_t, const std::string& name) {
        if (name != "preadv") return;
        Memory memory(payload);
        const auto op = store.store("aa01", memory, true);
        op->mount = there;
        store.run(op, other);
        for (const std::string& file : store.waiting()) {
            std::string bytes = TestStore::contents(file);
            bytes[5000] ^= 1;
            TestStore::write_file(file, bytes);
        }
        reads++;
    };
    Memory memory(payload);
    const Result result = store.run(store.load("aa01", memory));
    CHECK_EQUAL(reads, 2);
    CHECK(result.status == Status::not_found && result.aside_inode == 0 && result.aside_modified_ns == 0);
    other.close_roots();
}

TEST("a damaged file says the same twice, and is offered to be set aside; the block of another key is not") {
    RecyclingStore store;
    store.put("aa01", 1);
    std::string file = TestStore::contents(store.path("aa01"));
    file[5000] ^= 1;
    TestStore::write_file(store.path("aa01"), file);
    Memory memory(payload);
    const Result damaged = store.run(store.load("aa01", memory));
    CHECK(damaged.status == Status::corrupt && damaged.aside_inode == TestStore::inode(store.path("aa01")));
    // What a power cut may leave: the name is the new block's, the bytes are still the old one's.
    store.put("bb01", 2);
    std::filesystem::rename(store.path("bb01"), store.path("aa01"));
    const Result other = store.run(store.load("aa01", memory));
    CHECK(other.status == Status::corrupt && other.aside_inode == 0);
    // Or half of them.
    store.put("aa02", 3);
    const std::string right = TestStore::contents(store.path("aa02"));
    TestStore::write_file(store.path("aa02"), right.substr(0, 8192) + file.substr(8192));
    const Result half = store.run(store.load("aa02", memory));
    CHECK(half.status == Status::corrupt && half.aside_inode != 0);
}

TEST("lanes that store, replace, remove and load the same keys give out whole versions only") {
    RecyclingStore store;
    store.mount->recycle.set_limits({.files = 8, .bytes = 1 << 20, .rest_us = 0});
    constexpr int lanes = 4, rounds = 300, keys = 3;
    std::atomic<int> wrong{0}, loaded{0};
    std::vector<std::thread> threads;
    MonotonicClock clock;
    for (int lane = 0; lane < lanes; lane++) {
        threads.emplace_back([&, lane] {
            FakeFileSystem files;
            WatchWord word;
            LaneContext context(files, word, clock);
            Memory memory(payload);
            for (int round = 0; round < rounds; round++) {
                const int key = (round * 7 + lane) % keys;
                const auto op = std::make_shared<Operation>();
                op->mount = store.mount;
                op->root_generation = 1;
                op->name_space = store.name_space;
                op->hex = "aa0" + std::to_string(key);
                op->memory = memory.data();
                op->bytes = payload;
                const int what = (round + lane) % 4;
                op->kind = what == 0 ? Kind::remove : what == 3 ? Kind::load : Kind::store;
                op->replace = what == 1;
                // Each version says whose it is in every byte.
                memory.fill(static_cast<uint8_t>(what == 3 ? 0 : 1 + key + keys * (round % 60)));
                op->begin_running();
                const Result result = store.run(op, context);
                if (what != 3 || result.status == Status::not_found) continue;
                const auto byte = static_cast<uint8_t>(memory.data()[0]);
                bool same = result.status == Status::ok && byte != 0 && (byte - 1) % keys == key;
                for (uint64_t i = 0; i < payload && same; i++) same = static_cast<uint8_t>(memory.data()[i]) == byte;
                same ? ++loaded : ++wrong;
            }
            context.close_roots();
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK_EQUAL(wrong.load(), 0);
    CHECK(loaded.load() > 0);
    CHECK(store.figures().recycled > 0);
    CHECK(store.in_order() && store.temporaries().empty());
}
