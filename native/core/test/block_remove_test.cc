// block_remove_test.cc — with conditions, only the very file that was seen loses its name, and only while the lease lasts.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "../paths.h"
#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

const std::string key = "c0ffee";

uint64_t ns(const timespec& time) { return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec); }

struct stat seen(const std::string& file) {
    struct stat found = {};
    lstat(file.c_str(), &found);
    return found;
}

void put(TestStore& store) {
    Memory memory(4096);
    memory.fill_pattern(1);
    store.run(store.store(key, memory, true));
}

// A remove of the file as it is now.
std::shared_ptr<Operation> remove_seen(TestStore& store, uint64_t fence = 0) {
    const auto op = store.remove(key);
    const struct stat found = seen(store.path(key));
    op->inode = found.st_ino;
    op->modified_ns = ns(found.st_mtim);
    op->fence = fence;
    return op;
}

std::shared_ptr<Operation> remove_file(TestStore& store, const std::string& path, uint64_t fence = 0) {
    const auto op = store.operation(Kind::remove_file, LaneClass::metadata);
    op->path = path;
    const struct stat found = seen(store.root + "/" + path);
    op->inode = found.st_ino;
    op->changed_ns = ns(found.st_ctim);
    op->fence = fence;
    return op;
}

void lease(TestStore& store, uint64_t number) { TestStore::write_file(store.root + "/collector/" + std::to_string(number), "somebody"); }

bool there(const TestStore& store, const std::string& path) { return std::filesystem::exists(std::filesystem::symlink_status(store.root + "/" + path)); }

const std::string tmp = "c0ffee.0123456789abcdef-7.tmp";

}  // namespace

TEST("a block is removed if it is the file that was seen, and is kept if inode or time differ") {
    TestStore store;
    put(store);
    auto op = remove_seen(store);
    op->inode++;
    Result result = store.run(op);
    CHECK(result.status == Status::ok && result.kept && std::filesystem::exists(store.path(key)));
    op = remove_seen(store);
    op->modified_ns++;
    result = store.run(op);
    CHECK(result.status == Status::ok && result.kept && std::filesystem::exists(store.path(key)));
    op = remove_seen(store);
    op->inode = 0;
    op->modified_ns--;
    CHECK(store.run(op).kept);
    result = store.run(remove_seen(store));
    CHECK(result.status == Status::ok && !result.kept && result.uncached && !std::filesystem::exists(store.path(key)));
    op = store.remove(key);
    op->inode = 7;
    CHECK(store.run(op).status == Status::not_found);
}

TEST("only one of the two conditions may be asked for") {
    for (const bool by_inode : {true, false}) {
        TestStore store;
        put(store);
        const auto op = remove_seen(store);
        if (by_inode) op->modified_ns = 0;
        else op->inode = 0;
        CHECK(store.run(op).status == Status::ok && !op->result.kept);
        CHECK(!std::filesystem::exists(store.path(key)));
    }
}

TEST("a file that was named by its inode is recycled only if that is asked for; others are as ever") {
    struct Case {
        bool by_inode, recycles;
        uint64_t kept;
    };
    for (const auto [by_inode, recycles, kept] : {Case{true, false, 0}, Case{true, true, 1}, Case{false, false, 1}}) {
        TestStore store;
        store.mount->recycle.set_limits({.files = 10, .bytes = 1 << 20});
        put(store);
        const auto op = remove_seen(store);
        if (!by_inode) op->inode = 0;
        op->recycles = recycles;
        CHECK(store.run(op).status == Status::ok);
        CHECK_EQUAL(store.mount->recycle.figures().files, kept);
        CHECK(!std::filesystem::exists(store.path(key)));
    }
}

TEST("another file under the name, or a lease that was taken, and nothing is kept to be overwritten") {
    for (const bool fenced : {true, false}) {
        TestStore store;
        store.mount->recycle.set_limits({.files = 10, .bytes = 1 << 20});
        put(store);
        const auto op = remove_seen(store, fenced ? 1 : 0);
        if (fenced) lease(store, 1);
        else op->inode++;
        op->recycles = true;
        store.run(op);
        CHECK(fenced ? op->result.status == Status::fenced : op->result.kept);
        CHECK(std::filesystem::exists(store.path(key)));
        CHECK_EQUAL(store.mount->recycle.figures().files, 0U);
        CHECK_EQUAL(store.mount->recycle.figures().bytes, 0U);  // what was set aside for it is given back
    }
}

TEST("who removes a file for its room gets that of eight waiting ones too, while the fence holds") {
    TestStore store;
    store.mount->recycle.set_limits({.files = 10, .bytes = 1 << 20});
    for (int i = 0; i < 10; i++) {
        put(store);
        const auto kept = remove_seen(store);
        kept->recycles = true;
        store.run(kept);
    }
    CHECK_EQUAL(store.mount->recycle.figures().files, 10U);
    put(store);
    const uint64_t waiting = store.mount->recycle.figures().files;
    const auto fenced = remove_seen(store, 1);
    lease(store, 1);
    CHECK(store.run(fenced).status == Status::fenced);
    CHECK_EQUAL(store.mount->recycle.figures().files, waiting);
    CHECK(store.run(remove_seen(store)).status == Status::ok);
    CHECK_EQUAL(store.mount->recycle.figures().files, waiting - 8);
}

TEST("what is no plain file is another, and is neither followed nor waited for") {
    TestStore store;
    put(store);
    const std::string other = store.path("c0ff00");
    const auto kept = [&] {
        const auto op = store.remove("c0ff00");
        op->inode = TestStore::inode(other);
        const Result result = store.run(op);
        const bool is = result.status == Status::ok && result.kept && std::filesystem::exists(std::filesystem::symlink_status(other));
        std::filesystem::remove_all(other);
        return is;
    };
    CHECK(symlink("c0ffee.kvb", other.c_str()) == 0);
    CHECK(kept());
    CHECK(mkfifo(other.c_str(), 0600) == 0);
    CHECK(kept());
    std::filesystem::create_directory(other);
    CHECK(kept());
    CHECK(std::filesystem::exists(store.path(key)));
}

TEST("with a fence a block is removed only while the lease below it is the highest") {
    struct Case {
        std::vector<uint64_t> numbers;
        uint64_t fence;
        bool holds;
    };
    const Case cases[] = {{{7}, 8, true},      {{6, 7}, 8, true},  {{}, 1, true},          {{7, 8}, 8, false}, {{8}, 8, false}, {{7, 9}, 8, false},
                          {{9, 10}, 8, false}, {{}, 8, false},     {{6}, 8, false},        {{1}, 1, false},    {{2}, 1, false}, {{7, 999'999'999'999'999}, 8, false},
                          {{9, 11, 10}, 12, true}};
    for (const Case& c : cases) {
        for (const bool conditions : {true, false}) {
            TestStore store;
            put(store);
            TestStore::write_file(store.root + "/aside/x", "x");
            for (const uint64_t number : c.numbers) lease(store, number);
            auto op = remove_seen(store, c.fence);
            if (!conditions) op->inode = op->modified_ns = 0;
            Result result = store.run(op);
            CHECK_EQUAL(result.status, c.holds ? Status::ok : Status::fenced);
            CHECK(std::filesystem::exists(store.path(key)) == !c.holds);
            op = remove_file(store, "aside/x", c.fence);
            result = store.run(op);
            CHECK_EQUAL(result.status, c.holds ? Status::ok : Status::fenced);
            CHECK(there(store, "aside/x") == !c.holds);
        }
    }
}

TEST("what lies in collector/ and is no number is no lease: other names, leading zeros, sixteen digits") {
    TestStore store;
    put(store);
    lease(store, 7);
    for (const char* name : {"08", "0", "8.0123456789abcdef-1.tmp", "8x", " 9", "1000000000000000", "-9"}) TestStore::write_file(store.root + "/collector/" + name, "x");
    CHECK_EQUAL(store.run(remove_seen(store, 8)).status, Status::ok);
}

TEST("a higher number fences whatever it is: a directory, a link, a FIFO, a file that may not be read") {
    for (const int what : {0, 1, 2, 3}) {
        TestStore store;
        put(store);
        lease(store, 7);
        const std::string at = store.root + "/collector/8";
        if (what == 0) std::filesystem::create_directory(at);
        if (what == 1) CHECK(symlink("/nowhere", at.c_str()) == 0);
        if (what == 2) CHECK(mkfifo(at.c_str(), 0) == 0);
        if (what == 3) {
            lease(store, 8);
            chmod(at.c_str(), 0);
        }
        CHECK_EQUAL(store.run(remove_seen(store, 8)).status, Status::fenced);
        CHECK(std::filesystem::exists(store.path(key)));
    }
}

TEST("4,096 entries in collector/ are looked through, one more is somebody else's directory and nothing is removed") {
    TestStore store;
    put(store);
    lease(store, 7);
    for (int i = 0; i < 4095; i++) TestStore::write_file(store.root + "/collector/x" + std::to_string(i), "");
    const auto op = remove_seen(store, 8);
    op->modified_ns++;  // only the look counts here
    op->inode = 0;
    op->modified_ns = 0;
    CHECK_EQUAL(store.run(op).status, Status::ok);
    put(store);
    TestStore::write_file(store.root + "/collector/one more", "");
    const Result result = store.run(remove_seen(store, 8));
    CHECK(result.status == Status::io_error && result.error == E2BIG && result.text.find("more than 4096 entries") != std::string::npos);
    CHECK(std::filesystem::exists(store.path(key)));
}

TEST("the lease is looked at after the file and right before the unlink") {
    TestStore store;
    put(store);
    lease(store, 7);
    store.run(store.lookup({}));
    store.files.forget();
    CHECK_EQUAL(store.run(remove_seen(store, 8)).status, Status::ok);
    CHECK((store.files.calls == std::vector<std::string>{"open_path", "open", "stat", "close", "open", "entries", "entries", "close", "unlink", "close"}));
}

TEST("a lease that is lost between look and unlink costs that one block, and the next remove is fenced") {
    TestStore store;
    Memory memory(4096);
    put(store);
    lease(store, 7);
    store.run(store.store("c0ff00", memory));
    store.files.forget();
    store.files.before = [&](size_t, const std::string& name) {
        if (name == "unlink") lease(store, 8);
    };
    CHECK_EQUAL(store.run(remove_seen(store, 8)).status, Status::ok);
    store.files.forget();
    const auto next = store.remove("c0ff00");
    next->fence = 8;
    CHECK_EQUAL(store.run(next).status, Status::fenced);
    CHECK(std::filesystem::exists(store.path("c0ff00")));
}

TEST("a block that is replaced between look and unlink is lost, and a miss; before the look it is kept") {
    for (const char* when : {"open", "unlink"}) {
        TestStore store;
        put(store);
        WatchWord word;
        LaneContext other(posix_file_system(), word, store.clock);
        Memory fresh(4096);
        fresh.fill_pattern(9);
        const auto op = remove_seen(store);
        store.run(store.lookup({}));
        store.files.forget();
        bool once = false;
        store.files.before = [&](size_t, const std::string& name) {
            if (name == when && !std::exchange(once, true)) store.run(store.store(key, fresh, true), other);
        };
        const Result result = store.run(op);
        store.files.forget();
        CHECK(result.status == Status::ok && result.kept == (std::string(when) == "open"));
        Memory loaded(4096);
        const Status loads = store.run(store.load(key, loaded)).status;
        CHECK_EQUAL(loads, result.kept ? Status::ok : Status::not_found);
        other.close_roots();
    }
}

TEST("a remove with conditions that is abandoned takes nothing away; once it has begun, it has begun") {
    for (size_t at = 0; at < 9; at++) {
        TestStore store;
        put(store);
        lease(store, 7);
        store.run(store.lookup({}));
        store.files.forget();
        const auto op = remove_seen(store, 8);
        State state = State::done;
        store.files.before = [&](size_t number, const std::string&) {
            if (number == at) state = op->abandon();
        };
        const Result result = store.run(op);
        CHECK(std::filesystem::exists(store.path(key)) == (at < 8));
        CHECK_EQUAL(state, at < 8 ? State::running : State::committing);
        CHECK_EQUAL(result.status, at < 8 ? Status::expired : Status::ok);
        CHECK(store.files.calls.back() == "close");
    }
}

TEST("every call of a remove with conditions, and of a leftover's, may fail: the file stays, the errno is said, no descriptor is left open") {
    for (const bool block : {true, false}) {
        for (const int error : {EACCES, EIO, ENOMEM}) {
            for (size_t at = 0; at < 9; at++) {
                TestStore store;
                put(store);
                lease(store, 7);
                TestStore::write_file(store.root + "/aside/x", "x");
                store.run(store.lookup({}));
                const auto op = block ? remove_seen(store, 8) : remove_file(store, "aside/x", 8);
                const size_t descriptors = TestStore::open_descriptors();
                store.files.forget();
                store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
                    if (number == at) return -error;
                    return std::nullopt;
                };
                const Result result = store.run(op);
                const bool closes = store.files.calls[at] == "close";
                CHECK(TestStore::open_descriptors() == descriptors);
                CHECK(closes ? result.status == Status::ok : result.status == Status::io_error && result.error == error);
                CHECK(there(store, block ? block_path(store.name_space, key) : "aside/x") == !closes);
            }
        }
    }
}

TEST("a block whose file is gone for the server is not found") {
    TestStore store;
    put(store);
    store.run(store.lookup({}));
    store.files.forget();
    store.files.instead = [](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "stat") return -ESTALE;
        return std::nullopt;
    };
    CHECK_EQUAL(store.run(remove_seen(store)).status, Status::not_found);
}

TEST("a leftover is removed if it is the file that was seen, and is kept if inode or time of change differ") {
    TestStore store;
    for (const std::string& path : {"blocks/llama@3/c0/" + tmp, std::string("recycle/0123456789abcdef/12"), std::string("aside/llama.c0ffee.77.x-1")}) {
        TestStore::write_file(store.root + "/" + path, "left over");
        auto op = remove_file(store, path);
        op->inode++;
        CHECK(store.run(op).status == Status::ok && op->result.kept);
        op = remove_file(store, path);
        op->changed_ns++;
        CHECK(store.run(op).status == Status::ok && op->result.kept && there(store, path));
        op = remove_file(store, path);
        chmod((store.root + "/" + path).c_str(), 0640);  // a change that leaves the time of modification
        CHECK(store.run(op).kept && there(store, path));
        op = remove_file(store, path);
        const Result result = store.run(op);
        CHECK(result.status == Status::ok && !result.kept && result.uncached && !there(store, path));
        CHECK_EQUAL(store.run(remove_file(store, path)).status, Status::not_found);
    }
}

TEST("only leftovers are removed, whatever the path says, and none that this process made") {
    TestStore store;
    put(store);
    const std::string own = "c0ffee." + writer_name() + "-1.tmp";
    for (const std::string& path : {std::string(""), std::string("kvlane.json"), std::string("aside"), std::string("aside/.."), std::string("aside/../kvlane.json"), std::string("/aside/x"), std::string("aside//x"),
                                    block_path(store.name_space, key), std::string("blocks/llama@3/c0/x.kvb"), std::string("blocks/llama@3/x.tmp"), std::string("blocks/llama@3/../x.tmp"),
                                    std::string("blocks/a b/c0/x.tmp"), std::string("blocks/llama@3/c0f/x.tmp"), std::string("blocks/llama@3/c0/d/x.tmp"), std::string("recycle/w"), std::string("recycle/w/x/y"),
                                    std::string("namespaces/llama.json"), std::string("collector/7"), std::string("probe/block")}) {
        const Result result = store.run(remove_file(store, path));
        CHECK(result.status == Status::io_error && result.error == EINVAL && result.phase == Phase::queue);
    }
    for (const std::string& path : {"recycle/" + writer_name() + "/1", "blocks/llama@3/c0/" + own}) {
        TestStore::write_file(store.root + "/" + path, "x");
        const Result result = store.run(remove_file(store, path));
        CHECK(result.status == Status::io_error && result.error == EBUSY && there(store, path));
    }
    CHECK(std::filesystem::exists(store.path(key)) && there(store, "kvlane.json"));
}

TEST("a leftover that is no plain file stays, and a directory behind a link is no directory of the store") {
    TestStore store;
    TestStore::write_file(store.root + "/elsewhere/x", "x");
    std::filesystem::create_directories(store.root + "/aside/directory");
    CHECK(symlink("../kvlane.json", (store.root + "/aside/link").c_str()) == 0);
    CHECK(mkfifo((store.root + "/aside/fifo").c_str(), 0600) == 0);
    for (const char* path : {"aside/directory", "aside/link", "aside/fifo"}) {
        const Result result = store.run(remove_file(store, path));
        CHECK(result.status == Status::ok && result.kept && there(store, path));
    }
    std::filesystem::create_directories(store.root + "/recycle");
    CHECK(symlink("../elsewhere", (store.root + "/recycle/w").c_str()) == 0);
    CHECK(store.run(remove_file(store, "recycle/w/x")).status == Status::io_error);
    CHECK(there(store, "elsewhere/x"));
}
