// block_store_test.cc — a block appears whole and wanted, or not at all, whatever fails on the way.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

const std::string key = "c0ffee";

// The calls of one undisturbed store, to know how many there are to disturb.
std::vector<std::string> calls_of_a_store(bool durable, bool replace) {
    TestStore store;
    Memory memory(10'000);
    store.run(store.store("aa", memory));  // the root is open, as it is in a lane that has worked before
    store.run(store.store("c000", memory));  // and the block's directory is there
    store.files.forget();
    const auto op = store.store(key, memory, replace);
    op->durable = durable;
    store.run(op);
    return store.files.calls;
}

enum class Seen { nothing, whole_block, something_else };

Seen seen_under(TestStore& store, const Memory& expected) {
    if (!std::filesystem::exists(std::filesystem::symlink_status(store.path(key)))) return Seen::nothing;
    store.files.forget();
    Memory memory(expected.bytes());
    const bool whole = store.run(store.load(key, memory)).status == Status::ok && memory.equals(expected);
    return whole ? Seen::whole_block : Seen::something_else;
}

}  // namespace

TEST("a store is one write of header and payload, and one rename") {
    CHECK((calls_of_a_store(false, true) == std::vector<std::string>{"open_path", "create", "pwritev", "close", "rename", "close"}));
    CHECK((calls_of_a_store(true, false) == std::vector<std::string>{"open_path", "open_path", "create", "pwritev", "fsync", "close", "rename", "open",
                                                                      "fsync", "close", "close"}));
}

TEST("a block that is there is kept, with replace it is replaced") {
    TestStore store;
    Memory first(10'000);
    Memory second(5'000);
    first.fill_pattern(1);
    second.fill_pattern(2);
    store.run(store.store(key, first));
    const Result& kept = store.run(store.store(key, second));
    CHECK(kept.status == Status::ok && kept.kept && !kept.uncached);
    CHECK(seen_under(store, first) == Seen::whole_block);
    const Result& replaced = store.run(store.store(key, second, true));
    CHECK(replaced.status == Status::ok && !replaced.kept && replaced.uncached);
    CHECK(seen_under(store, second) == Seen::whole_block);
    CHECK(store.leftovers().empty());
}

TEST("what is too short for a block is stored over, a symbolic link is replaced and not followed") {
    TestStore store;
    Memory memory(4096);
    memory.fill_pattern(3);
    TestStore::write_file(store.path(key), "");
    CHECK(!store.run(store.store(key, memory)).kept);
    CHECK(seen_under(store, memory) == Seen::whole_block);
    std::filesystem::remove(store.path(key));
    TestStore::write_file(store.root + "/target", "untouched");
    std::filesystem::create_symlink(store.root + "/target", store.path(key));
    CHECK(store.run(store.store(key, memory)).status == Status::ok);
    CHECK(seen_under(store, memory) == Seen::whole_block);
    CHECK(TestStore::contents(store.root + "/target") == "untouched");
}

TEST("files and directories get the mode that was asked for") {
    TestStore store;
    Memory memory(4096);
    struct stat found = {};
    const mode_t before = umask(0);
    store.run(store.store(key, memory));
    CHECK(stat(store.path(key).c_str(), &found) == 0 && (found.st_mode & 07777) == 0600);
    CHECK(stat((store.root + "/blocks/" + store.name_space + "/c0").c_str(), &found) == 0 && (found.st_mode & 07777) == 0700);
    store.name_space = "shared";
    const auto op = store.store(key, memory);
    op->file_mode = 0664;
    store.run(op);
    CHECK(stat(store.path(key).c_str(), &found) == 0 && (found.st_mode & 07777) == 0664);
    CHECK(stat((store.root + "/blocks/shared").c_str(), &found) == 0 && (found.st_mode & 07777) == 0775);
    umask(before);
}

TEST("abandoned or past its deadline at any call, a store is invisible before the rename and leaves nothing behind") {
    for (const bool durable : {false, true}) {
        const std::vector<std::string> calls = calls_of_a_store(durable, false);
        size_t renaming = 0;
        while (calls[renaming] != "rename") renaming++;
        for (const bool by_deadline : {false, true}) {
            for (size_t at = 0; at < calls.size(); at++) {
                TestStore store;
                Memory memory(10'000);
                memory.fill_pattern(at);
                store.run(store.store("aa", memory));
                store.run(store.store("c000", memory));
                const size_t descriptors = TestStore::open_descriptors();
                store.files.forget();
                const auto op = store.store(key, memory);
                op->durable = durable;
                op->deadline_us = store.clock.now_us() + 1000;
                State state_when_abandoned = State::done;
                store.files.before = [&](size_t number, const std::string&) {
                    if (number != at) return;
                    if (by_deadline) store.clock.advance_us(1000);
                    else state_when_abandoned = op->abandon();
                };
                const Result& result = store.run(op);
                const bool committed = at >= renaming;
                CHECK(committed == (seen_under(store, memory) == Seen::whole_block));
                CHECK(committed || result.status == Status::expired);
                CHECK(store.leftovers().empty());
                CHECK(TestStore::open_descriptors() == descriptors);
                if (!by_deadline) CHECK(state_when_abandoned == (committed ? State::committing : State::running));
            }
        }
    }
}

TEST("an error of any call, answered without the call or after it, leaves the old block or none, and no temporary") {
    for (const bool replace : {false, true}) {
        const std::vector<std::string> calls = calls_of_a_store(true, replace);
        for (const int error : {EIO, ENOSPC, EDQUOT, EROFS, ESTALE}) {
            for (const bool done_anyway : {false, true}) {
                for (size_t at = 0; at < calls.size(); at++) {
                    TestStore store;
                    Memory old(10'000);
                    Memory fresh(10'000);
                    old.fill_pattern(1);
                    fresh.fill_pattern(2);
                    store.run(store.store("aa", old));
                    store.run(store.store("c000", old));
                    if (replace) store.run(store.store(key, old));
                    const size_t descriptors = TestStore::open_descriptors();
                    store.files.forget();
                    const auto answer = [&](size_t number, const std::string&) -> std::optional<int64_t> {
                        if (number == at) return -error;
                        return std::nullopt;
                    };
                    if (done_anyway) store.files.after = answer;
                    else store.files.instead = answer;
                    const auto op = store.store(key, fresh, replace);
                    op->durable = true;
                    const Result result = store.run(op);
                    const bool no_room = error == ENOSPC || error == EDQUOT;
                    if (result.status != Status::ok) {
                        CHECK(result.status == (no_room ? Status::no_space : Status::io_error) && result.error == error);
                    }
                    // The name stands for the old block, the new one, or nothing; never for a part of one.
                    const Seen seen_old = replace ? seen_under(store, old) : Seen::nothing;
                    const Seen seen_fresh = seen_under(store, fresh);
                    const bool has_old = seen_old == Seen::whole_block;
                    const bool has_fresh = seen_fresh == Seen::whole_block;
                    CHECK(replace ? has_old || has_fresh : seen_fresh != Seen::something_else);
                    CHECK(result.status != Status::ok || has_fresh);
                    CHECK(store.leftovers().empty());
                    // The cached root may have been opened again since; not more than that.
                    CHECK(TestStore::open_descriptors() == descriptors);
                }
            }
        }
    }
}

TEST("short writes are continued, and a file system that takes nothing more is an error") {
    TestStore store;
    Memory memory(50'000);
    memory.fill_pattern(6);
    for (const size_t most : {size_t{512}, size_t{4096}, size_t{8192}, size_t{53'248 - 512}}) {
        store.files.forget();
        store.files.transfer_bytes_max = most;
        const Result& result = store.run(store.store(key, memory, true));
        // Less than a page at a time is no progress for O_DIRECT in whole pages.
        CHECK(result.status == (most < 4096 || most > 50'000 ? Status::io_error : Status::ok) || seen_under(store, memory) == Seen::whole_block);
        store.files.forget();
        CHECK(store.leftovers().empty());
    }
    CHECK(seen_under(store, memory) == Seen::whole_block);
    store.files.instead = [](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "pwritev") return 0;
        return std::nullopt;
    };
    CHECK(store.run(store.store("dd", memory)).status == Status::io_error);
    CHECK(store.leftovers().empty());
}

TEST("where rename cannot refuse to replace, and where O_DIRECT is refused at the open or at the write, a store works") {
    for (int way = 0; way < 3; way++) {
        TestStore store;
        Memory memory(10'000);
        memory.fill_pattern(8);
        store.files.refuses_no_replace = way == 0;
        store.files.refuses_direct_open = way == 1;
        if (way == 2) {
            store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
                if (name == "pwritev" && store.files.count("pwritev") == 1) return -EINVAL;
                return std::nullopt;
            };
        }
        const Result& result = store.run(store.store(key, memory));
        CHECK(result.status == Status::ok && result.uncached == (way == 0));
        CHECK(seen_under(store, memory) == Seen::whole_block);
        CHECK(store.leftovers().empty());
    }
}

TEST("another sidecar that stores the same block at the same moment wins or loses, and both are content") {
    TestStore store;
    Memory mine(4096);
    Memory theirs(4096);
    mine.fill_pattern(1);
    theirs.fill_pattern(2);
    store.run(store.store("c000", mine));
    store.files.forget();
    store.files.before = [&](size_t, const std::string& name) {
        if (name != "rename") return;
        store.files.before = nullptr;
        WatchWord word;
        LaneContext other(store.files, word, store.clock);
        store.run(store.store(key, theirs), other);
        other.close_roots();
    };
    const Result& result = store.run(store.store(key, mine));
    CHECK(result.status == Status::ok && result.kept);
    CHECK(seen_under(store, theirs) == Seen::whole_block);
    CHECK(store.leftovers().empty());
}

TEST("a directory under the block's name is an error, and stays") {
    TestStore store;
    Memory memory(4096);
    std::filesystem::create_directories(store.path(key));
    CHECK(store.run(store.store(key, memory)).status == Status::io_error);
    CHECK(std::filesystem::is_directory(store.path(key)));
    CHECK(store.leftovers().empty());
}

TEST("a block that only this host's caches still know, because another host removed it, is stored") {
    for (const int error : {ENOENT, ESTALE}) {
        TestStore store;
        Memory memory(10'000);
        memory.fill_pattern(4);
        store.run(store.store(key, memory));
        store.files.forget();
        bool looked = false;
        store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
            if (name != "stat" || std::exchange(looked, true)) return std::nullopt;
            std::filesystem::remove(store.path(key));
            return -error;
        };
        const Result& result = store.run(store.store(key, memory));
        CHECK(looked && result.status == Status::ok && !result.kept);
        CHECK(std::filesystem::exists(store.path(key)));
    }
}
