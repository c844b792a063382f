// recycling_faults_test.cc — recycled files when calls fail, come too late or find no room: a block is whole or not there.
#include <algorithm>
#include <string_view>

#include "recycling_store.h"

using namespace kvlane;

TEST("where nothing is recycled any more, what waits is unlinked one by one") {
    RecyclingStore store;
    for (int i = 0; i < 4; i++) store.put("aa0" + std::to_string(i), 1);
    for (int i = 0; i < 3; i++) store.run(store.remove("aa0" + std::to_string(i)));
    CHECK(store.waiting().size() == 3);
    store.mount->recycle.turn_off();
    store.put("bb01", 2);
    store.put("aa03", 3, true);
    CHECK(store.run(store.remove("bb01")).status == Status::ok);
    CHECK(store.waiting().empty() && store.figures().files == 0 && store.figures().bytes == 0);
    CHECK(store.figures().recycled == 0 && store.figures().dropped == 3 && store.holds("aa03", 3) == 1);
}

TEST("a recycle/ that is another user's is asked for once, and blocks are stored and removed all the same") {
    RecyclingStore store;
    store.put("aa01", 1);
    store.put("aa02", 1);
    store.files.forget();
    store.files.instead = [](size_t, const std::string& name) { return name == "make_directory" ? std::optional<int64_t>(-EACCES) : std::nullopt; };
    CHECK(store.run(store.remove("aa01")).status == Status::ok);
    store.files.forget();
    CHECK(!store.mount->recycle.on() && store.waiting().empty());
    CHECK(store.run(store.remove("aa02")).status == Status::ok);
    CHECK(store.files.count("make_directory") == 0 && store.figures().bytes == 0);
}

TEST("whatever fails in a store over a recycled file, the block is there whole or not at all, and the file does not go back") {
    for (const bool replace : {false, true}) {
        for (const bool durable : {false, true}) {
            size_t calls = 1;
            for (size_t at = 0; at < calls; at++) {
                for (const int way : {0, 1, 2, 3, 4}) {  // fails, fails though it was done, abandoned, past its deadline, out of room
                    RecyclingStore store;
                    store.put("c0ffee", 1);
                    store.put("aa01", 2);
                    store.run(store.remove("aa01"));
                    if (!replace) store.run(store.remove("c0ffee"));
                    const size_t descriptors = TestStore::open_descriptors();
                    Memory memory(payload);
                    memory.fill_pattern(3);
                    const auto op = store.store("c0ffee", memory, replace);
                    op->durable = durable;
                    op->deadline_us = store.clock.now_us() + 1000;
                    store.files.forget();
                    const auto answer = [&](size_t number, const std::string&) -> std::optional<int64_t> {
                        return number == at ? std::optional<int64_t>(way == 4 ? -ENOSPC : -EIO) : std::nullopt;
                    };
                    if (way == 0 || way == 4) store.files.instead = answer;
                    if (way == 1) store.files.after = answer;
                    store.files.before = [&](size_t number, const std::string&) {
                        if (number == at && way == 2) op->abandon();
                        if (number == at && way == 3) store.clock.advance_us(1000);
                    };
                    const Result result = store.run(op);
                    store.files.forget();
                    const int seen = store.holds("c0ffee", 3, 1);
                    CHECK(seen != -1);
                    if (result.status == Status::ok) CHECK(seen == 1);
                    if (replace) CHECK(seen != 0);
                    CHECK_EQUAL(TestStore::open_descriptors(), descriptors);
                    // A call that failed in clean-up, or after it was done, may leave a file that nobody will touch.
                    const auto figures = store.figures();
                    CHECK(figures.files <= store.waiting().size());
                    if (way == 2 || way == 3) CHECK(store.in_order() && store.temporaries().empty());
                    // And what waits is good for the next.
                    store.put("dd01", 5);
                    CHECK(store.holds("dd01", 5) == 1 && store.holds("c0ffee", 3, 1) == seen);
                }
                if (at == 0) {
                    RecyclingStore store;
                    store.put("c0ffee", 1);
                    store.put("aa01", 2);
                    store.run(store.remove("aa01"));
                    if (!replace) store.run(store.remove("c0ffee"));
                    Memory memory(payload);
                    const auto op = store.store("c0ffee", memory, replace);
                    op->durable = durable;
                    store.files.forget();
                    store.run(op);
                    CHECK(store.figures().recycled == 1);
                    calls = store.files.calls.size();
                }
            }
        }
    }
}

TEST("a process that dies at any step leaves each block whole or not there, and what it had is nobody's") {
    for (const char* way : {"store", "replace", "remove"}) {
        for (size_t at = 0, calls = 1; at < calls; at++) {
            RecyclingStore store;
            const bool replace = std::string_view(way) == "replace", remove = std::string_view(way) == "remove";
            store.put("aa01", 1);
            store.put("bb01", 2);
            if (replace || remove) store.put("c0ffee", 3);
            store.run(store.remove("aa01"));
            const auto seen_inode = TestStore::inode(store.waiting().at(0));
            Memory memory(payload);
            memory.fill_pattern(4);
            store.files.forget();
            store.files.instead = [&](size_t number, const std::string& name) { return number >= at && name != "close" ? std::optional<int64_t>(-EIO) : std::nullopt; };
            store.run(remove ? store.remove("c0ffee") : store.store("c0ffee", memory, replace));
            calls = std::max(calls, store.files.calls.size());
            store.files.forget();
            const int left = store.holds("c0ffee", 3, 4);
            CHECK(replace ? left > 0 : remove ? left == 0 || left == 1 : left == 0 || left == 2);
            CHECK(store.holds("aa01", 1) == 0 && store.holds("bb01", 2) == 1);
            // Another one on the same store: its stores take none of these files, and all blocks stay as they are.
            const auto next = store.seen_by_another();
            const auto again = store.store("dd01", memory);
            again->mount = next;
            CHECK(store.run(again).status == Status::ok);
            CHECK(next->recycle.figures().recycled == 0);
            CHECK(TestStore::inode(store.path("dd01")) != seen_inode || left == 2);
            CHECK(store.holds("c0ffee", 3, 4) == left && store.holds("bb01", 2) == 1);
        }
    }
}

TEST("a file that a store has written to and did not publish never comes back") {
    RecyclingStore store;
    store.put("aa01", 1);
    const uint64_t inode = TestStore::inode(store.path("aa01"));
    store.run(store.remove("aa01"));
    Memory memory(payload);
    const auto stuck = store.store("bb01", memory);
    auto work = make_block_work(stuck);
    auto next = work->start(*store.lane);
    CHECK(next && next->what == Transfer::What::write);
    // The write is in the kernel. Everybody else makes files, and removes some.
    {
        WatchWord word;
        LaneContext other(store.files, word, store.clock);
        for (int i = 0; i < 6; i++) {
            const std::string hex = "cc0" + std::to_string(i);
            Memory bytes(payload);
            store.run(store.store(hex, bytes), other);
            CHECK(TestStore::inode(store.path(hex)) != inode);
            if (i % 2 == 0) store.run(store.remove(hex), other);
        }
        other.close_roots();
    }
    stuck->abandon();
    next = work->resume(*store.lane, store.lane->transfer(*stuck, *next));
    CHECK(!next && stuck->result.status == Status::expired);
    CHECK(store.holds("bb01", 0) == 0);
    for (const std::string& file : store.waiting()) CHECK(TestStore::inode(file) != inode);
    CHECK(store.in_order());
}

TEST("whatever fails in a remove, the block is there whole or it is gone") {
    size_t calls = 1;
    for (size_t at = 0; at < calls; at++) {
        for (const int way : {0, 1, 2, 3}) {
            RecyclingStore store;
            store.put("aa01", 1);
            const size_t descriptors = TestStore::open_descriptors();
            store.files.forget();
            const auto op = store.remove("aa01");
            op->deadline_us = store.clock.now_us() + 1000;
            const auto answer = [&](size_t number, const std::string&) { return number == at ? std::optional<int64_t>(-EIO) : std::nullopt; };
            if (way == 0) store.files.instead = answer;
            if (way == 1) store.files.after = answer;
            store.files.before = [&](size_t number, const std::string&) {
                if (number == at && way == 2) op->abandon();
                if (number == at && way == 3) store.clock.advance_us(1000);
            };
            const Result result = store.run(op);
            calls = std::max(calls, store.files.calls.size());
            store.files.forget();
            const int seen = store.holds("aa01", 1);
            CHECK(seen != -1);
            if (result.status == Status::ok) CHECK(seen == 0);
            CHECK_EQUAL(TestStore::open_descriptors(), descriptors);
            CHECK(store.figures().files <= store.waiting().size());
            store.put("bb01", 2);
            CHECK(store.holds("bb01", 2) == 1);
        }
    }
}

TEST("a full file system gets the pool's room") {
    for (const char* call : {"make_directory", "create", "pwritev"}) {
        RecyclingStore store;
        for (int i = 0; i < 8; i++) store.put("aa0" + std::to_string(i), 1);
        for (int i = 0; i < 8; i++) store.run(store.remove("aa0" + std::to_string(i)));
        store.files.forget();
        store.files.instead = [&](size_t, const std::string& name) { return name == call && store.figures().files > 0 ? std::optional<int64_t>(-ENOSPC) : std::nullopt; };
        store.put("bb01", 2, false, 100'000);
        store.files.forget();
        CHECK(store.holds("bb01", 2, 0, 100'000) == 1 && store.figures().files == 0 && store.in_order());
        store.files.instead = [&](size_t, const std::string& name) { return name == call ? std::optional<int64_t>(-ENOSPC) : std::nullopt; };
        Memory memory(payload);
        CHECK(store.run(store.store("cc02", memory)).status == Status::no_space);
    }
}

TEST("where names cannot be exchanged, or not moved exclusively, blocks are replaced and removed all the same") {
    RecyclingStore store;
    store.files.refuses_no_replace = true;
    store.put("aa01", 1);
    store.put("aa01", 2, true);
    CHECK(store.holds("aa01", 2) == 1 && store.figures().files == 0 && store.waiting().empty());
    CHECK(store.run(store.remove("aa01")).status == Status::ok);
    CHECK(store.holds("aa01", 2) == 0 && store.waiting().empty() && !store.mount->recycle.on());
    store.put("aa02", 3, true);
    CHECK(store.holds("aa02", 3) == 1 && store.temporaries().empty());
}

TEST("where files may not move between directories, the block is written once more") {
    for (const bool replace : {false, true}) {
        RecyclingStore store;
        store.put("aa01", 1);
        store.put("bb01", 1);
        store.run(store.remove("bb01"));
        bool first = true;
        store.files.instead = [&](size_t, const std::string& name) {
            return name == "rename" && std::exchange(first, false) ? std::optional<int64_t>(-EXDEV) : std::nullopt;
        };
        store.put(replace ? "aa01" : "cc01", 2, replace);
        store.files.forget();
        CHECK(store.holds(replace ? "aa01" : "cc01", 2) == 1 && !store.mount->recycle.on() && store.temporaries().empty());
    }
}

TEST("files that somebody tidied away are not missed") {
    RecyclingStore store;
    store.put("aa01", 1);
    store.run(store.remove("aa01"));
    std::filesystem::remove_all(store.recycled_path());
    store.put("bb01", 2);
    CHECK(store.holds("bb01", 2) == 1 && store.figures().lost == 1);
    // While it was written to.
    store.run(store.remove("bb01"));
    store.files.forget();
    store.files.before = [&](size_t, const std::string& name) {
        if (name == "pwritev") std::filesystem::remove_all(store.recycled_path());
    };
    store.put("cc01", 3);
    store.files.forget();
    CHECK(store.holds("cc01", 3) == 1 && store.figures().lost == 2 && store.temporaries().empty());
}

TEST("what other writers left long ago is unlinked, and nothing else") {
    RecyclingStore store;
    store.put("aa01", 1);
    store.run(store.remove("aa01"));
    const std::string other = store.root + "/recycle/0123456789abcdef";
    TestStore::write_file(other + "/1", "left");
    TestStore::write_file(store.root + "/recycle/note", "not a directory");
    std::filesystem::create_directories(other + "/2");
    const auto tidy = [&](uint64_t older_us) {
        const auto op = store.operation(Kind::tidy, LaneClass::metadata);
        op->older_us = older_us;
        return store.run(op);
    };
    CHECK_EQUAL(tidy(3'600'000'000).text, "0");
    CHECK(std::filesystem::exists(other + "/1"));
    CHECK_EQUAL(tidy(0).text, "1");
    CHECK(!std::filesystem::exists(other + "/1") && std::filesystem::exists(other + "/2"));
    std::filesystem::remove(other + "/2");
    CHECK_EQUAL(tidy(0).status, Status::ok);
    CHECK(!std::filesystem::exists(other) && std::filesystem::exists(store.root + "/recycle/note"));
    CHECK(store.in_order() && store.figures().files == 1);
    // Every call may fail, or come too late.
    for (const int way : {0, 2}) {
        for (size_t at = 0; at < 40; at++) {
            TestStore::write_file(other + "/1", "left");
            const size_t descriptors = TestStore::open_descriptors();
            const auto op = store.operation(Kind::tidy, LaneClass::metadata);
            store.files.forget();
            if (way == 0) store.files.instead = [&](size_t number, const std::string&) { return number == at ? std::optional<int64_t>(-EIO) : std::nullopt; };
            if (way == 2) store.files.before = [&](size_t number, const std::string&) { if (number == at) op->abandon(); };
            store.run(op);
            store.files.forget();
            CHECK_EQUAL(TestStore::open_descriptors(), descriptors);
            CHECK(store.in_order() && store.figures().files == 1);
        }
    }
}
