// block_touch_test.cc — which blocks get the time of now, and that nothing else happens to them.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <filesystem>

#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

constexpr uint64_t hour_us = 3'600'000'000;

std::shared_ptr<Operation> touch(TestStore& store, const std::vector<std::string>& names, uint64_t older_us = hour_us) {
    const auto op = store.operation(Kind::touch, LaneClass::metadata);
    op->names = names;
    op->older_us = older_us;
    return op;
}

std::string counts(int touched, int absent, int fresh, int failed) {
    return "{\"touched\":" + std::to_string(touched) + ",\"absent\":" + std::to_string(absent) + ",\"fresh\":" + std::to_string(fresh) + ",\"failed\":" + std::to_string(failed) + "}";
}

int64_t modified_s(const std::string& file) {
    struct stat found = {};
    return stat(file.c_str(), &found) == 0 ? found.st_mtim.tv_sec : -1;
}

void put(TestStore& store, const std::string& hex, int64_t modified) {
    Memory memory(4096);
    memory.fill_pattern(3);
    store.run(store.store(hex, memory));
    TestStore::set_modified(store.path(hex), modified);
}

}  // namespace

TEST("blocks that were modified long ago, or far in the future, get the time of now, fresh ones keep theirs, absent ones are skipped") {
    TestStore store;
    const int64_t now = time(nullptr);
    put(store, "aa01", 1'000);
    put(store, "bb01", now - 2 * 3600);
    put(store, "aa02", now - 1800);
    put(store, "aa03", now + 7200);  // by another clock
    put(store, "aa05", now + 1800);
    const Result result = store.run(touch(store, {"aa01", "cc01", "aa02", "bb01", "aa03", "aa05", "aa04"}));
    CHECK(result.status == Status::ok && result.error == 0);
    CHECK_EQUAL(result.text, counts(3, 2, 2, 0));
    CHECK(modified_s(store.path("aa01")) >= now && modified_s(store.path("bb01")) >= now);
    CHECK(modified_s(store.path("aa03")) >= now && modified_s(store.path("aa03")) < now + 1800);
    CHECK(modified_s(store.path("aa02")) == now - 1800 && modified_s(store.path("aa05")) == now + 1800);
    Memory loaded(4096);
    for (const char* hex : {"aa01", "bb01", "aa02", "aa03"}) CHECK(store.run(store.load(hex, loaded)).status == Status::ok);
}

TEST("in a namespace that is not there all are absent, and no names are no work") {
    TestStore store;
    CHECK_EQUAL(store.run(touch(store, {"aa01", "aa02"})).text, counts(0, 2, 0, 0));
    CHECK_EQUAL(store.run(touch(store, {})).text, counts(0, 0, 0, 0));
}

TEST("a name that is no block's is refused, and nothing is touched") {
    TestStore store;
    put(store, "aa01", 1'000);
    for (const char* hex : {"..", "aa/01", "AA01", ""}) {
        const Result result = store.run(touch(store, {"aa01", hex}));
        CHECK(result.status == Status::io_error && result.error == EINVAL && result.phase == Phase::queue);
    }
    CHECK(modified_s(store.path("aa01")) == 1'000);
}

TEST("links are not followed, FIFOs not waited for, directories left alone: they count as failed") {
    TestStore store;
    put(store, "aa01", 1'000);
    CHECK(symlink("aa01.kvb", store.path("aa02").c_str()) == 0);
    CHECK(mkfifo(store.path("aa03").c_str(), 0600) == 0);
    std::filesystem::create_directory(store.path("aa04"));
    TestStore::set_modified(store.path("aa03"), 1'000);
    const Result result = store.run(touch(store, {"aa02", "aa03", "aa04"}, 0));
    CHECK(result.status == Status::ok);
    CHECK_EQUAL(result.text, counts(0, 0, 0, 3));
    CHECK(modified_s(store.path("aa01")) == 1'000 && modified_s(store.path("aa03")) == 1'000);
}

TEST("a refusal, or any other error of one block, is counted and told, and does not end the others") {
    for (const int error : {EROFS, EACCES, EPERM, EIO}) {
        for (const char* call : {"open", "stat", "touch"}) {
            TestStore store;
            for (const char* hex : {"aa01", "aa02", "aa03"}) put(store, hex, 1'000);
            store.run(touch(store, {}));
            store.files.forget();
            size_t seen = 0;
            store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
                if (name == call && ++seen == 2) return -error;
                return std::nullopt;
            };
            const size_t descriptors = TestStore::open_descriptors();
            const Result result = store.run(touch(store, {"aa01", "aa02", "aa03"}));
            CHECK(result.status == Status::ok && result.error == error);
            CHECK_EQUAL(result.text, counts(2, 0, 0, 1));
            CHECK(modified_s(store.path("aa02")) == 1'000);
            CHECK(TestStore::open_descriptors() == descriptors);
        }
    }
}

TEST("a block that goes away while it is touched is absent") {
    for (const int error : {ESTALE, ENOENT}) {
        for (const char* call : {"stat", "touch"}) {
            TestStore store;
            put(store, "aa01", 1'000);
            store.run(touch(store, {}));
            store.files.forget();
            store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
                if (name == call) return -error;
                return std::nullopt;
            };
            CHECK_EQUAL(store.run(touch(store, {"aa01"})).text, counts(0, 1, 0, 0));
        }
    }
}

TEST("a touch that is abandoned touches no further block") {
    TestStore store;
    for (const char* hex : {"aa01", "aa02", "aa03"}) put(store, hex, 1'000);
    store.run(touch(store, {}));
    store.files.forget();
    const auto op = touch(store, {"aa01", "aa02", "aa03"});
    store.files.before = [&](size_t, const std::string& name) {
        if (name == "touch") op->abandon();
    };
    CHECK(store.run(op).status == Status::expired);
    CHECK(store.files.count("touch") == 1 && store.files.count("open") == 1);
    CHECK(modified_s(store.path("aa02")) == 1'000 && modified_s(store.path("aa03")) == 1'000);
}

TEST("the directory of a namespace that cannot be opened is said, with its errno") {
    TestStore store;
    put(store, "aa01", 1'000);
    store.run(touch(store, {}));
    store.files.forget();
    store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
        if (number == 0) return -EACCES;
        return std::nullopt;
    };
    const Result result = store.run(touch(store, {"aa01"}));
    CHECK(result.status == Status::io_error && result.error == EACCES && result.phase == Phase::open);
}
