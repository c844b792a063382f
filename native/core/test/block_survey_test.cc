// block_survey_test.cc — a look at a file system that is, refuses, fails, lies or gives up at any call.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "../json_text.h"
#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

const char* const steps[] = {"root", "make", "write", "read", "rename", "exclusive", "unlinked", "list", "clean"};

std::shared_ptr<Operation> step(TestStore& store, const std::string& name) {
    auto op = store.operation(Kind::survey, LaneClass::metadata);
    op->text = name;
    op->hex = "1-ab";
    return op;
}
Result run(TestStore& store, const std::string& name) { return store.run(step(store, name)); }
// What it builds on.
void prepare(TestStore& store, const std::string& name) {
    if (name != "root" && name != "make") CHECK_EQUAL(run(store, "make").status, Status::ok);
    if (name == "read") CHECK_EQUAL(run(store, "write").status, Status::ok);
}
std::string fact(const Result& result, const char* name) {
    const auto members = json_members(result.text);
    if (!members) return "no JSON: " + result.text;
    const auto found = members->find(name);
    return found == members->end() ? "" : found->second;
}
auto answering(const std::string& call, int64_t answer) {
    return [call, answer](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == call) return answer;
        return std::nullopt;
    };
}

}  // namespace

TEST("a survey of a directory that is no store goes through all its steps and leaves nothing behind") {
    TestStore store(false);
    const size_t descriptors = TestStore::open_descriptors();
    for (const char* name : steps) {
        const Result result = run(store, name);
        CHECK_EQUAL(result.status, Status::ok);
        CHECK_EQUAL(fact(result, "detail"), "\"\"");
    }
    CHECK(store.tree().empty());
    CHECK_EQUAL(TestStore::open_descriptors(), descriptors);
}

TEST("the first step of a survey says where the directory is, on what, with how much room, and whether a store is there") {
    TestStore store(false);
    std::filesystem::create_directory(store.root + "/real");
    std::filesystem::create_directory_symlink(store.root + "/real", store.root + "/link");
    auto op = step(store, "root");
    op->mount = std::make_shared<Mount>(store.root + "/link");
    const Result result = store.run(op);
    CHECK_EQUAL(fact(result, "path"), "\"" + std::filesystem::canonical(store.root).string() + "/real\"");
    CHECK(json_number(fact(result, "mount_id")).has_value());  // 0 before Linux 5.8, and under an emulator
    CHECK(json_number(fact(result, "blocks")).value_or(0) > 0 && json_number(fact(result, "block_bytes")).value_or(0) >= 512);
    CHECK_EQUAL(fact(result, "store"), "false");
    TestStore::write_file(store.root + "/real/kvlane.json", "{}");
    auto again = step(store, "root");
    again->mount = op->mount;
    std::filesystem::create_directory(store.root + "/real/.kvlane-doctor-9-99");
    const Result told = store.run(again);
    CHECK_EQUAL(fact(told, "store"), "true");
    CHECK_EQUAL(fact(result, "other_doctors") + fact(told, "other_doctors"), "01");
}

TEST("a survey touches nothing of a store that is there") {
    TestStore store;
    TestStore::write_file(store.root + "/blocks/llama/00/00ff.kvb", "somebody's");
    TestStore::write_file(store.root + "/.kvlane-doctor-9-99/block", "of another doctor");
    const auto before = store.tree();
    for (const char* name : steps) run(store, name);
    CHECK(store.tree() == before);
    CHECK_EQUAL(TestStore::contents(store.root + "/.kvlane-doctor-9-99/block"), "of another doctor");
}

TEST("a survey of what is no directory, or is not there, says so") {
    TestStore store(false);
    TestStore::write_file(store.root + "/file", "");
    for (const char* name : {"/file", "/missing"}) {
        auto op = step(store, "root");
        op->mount = std::make_shared<Mount>(store.root + name);
        const Result result = store.run(op);
        CHECK_EQUAL(result.status, Status::not_found);
        CHECK(fact(result, "detail").find("there is no directory") != std::string::npos);
    }
    CHECK_EQUAL(run(store, "no such step").error, EINVAL);
}

TEST("a survey takes no directory over that is there already") {
    TestStore store(false);
    TestStore::write_file(store.root + "/.kvlane-doctor-1-ab/block", "somebody's");
    CHECK_EQUAL(run(store, "make").error, EEXIST);
    CHECK_EQUAL(TestStore::contents(store.root + "/.kvlane-doctor-1-ab/block"), "somebody's");
}

TEST("a survey of a file system that is full, read-only or not ours says so, and removes all that it made") {
    for (const auto& [call, error] : std::vector<std::pair<std::string, int>>{{"make_directory", EROFS}, {"make_directory", EACCES}, {"create", ENOSPC}, {"create", EDQUOT}, {"create", EACCES}}) {
        TestStore store(false);
        store.files.instead = answering(call, -error);
        const Result result = run(store, "make");
        CHECK_EQUAL(result.error, error);
        CHECK_EQUAL(result.status, error == ENOSPC || error == EDQUOT ? Status::no_space : Status::io_error);
        store.files.forget();
        CHECK_EQUAL(run(store, "clean").status, Status::ok);
        CHECK(store.tree().empty());
    }
    TestStore store(false);
    prepare(store, "write");
    store.files.instead = answering("pwritev", -ENOSPC);
    CHECK_EQUAL(run(store, "write").status, Status::no_space);
    store.files.forget();
    run(store, "clean");
    CHECK(store.tree().empty());
}

TEST("a survey tells that O_DIRECT is refused, at the open or at the first transfer, and does the rest without") {
    TestStore at_open(false);
    at_open.files.refuses_direct_open = true;
    for (const char* name : steps) {
        const Result result = run(at_open, name);
        CHECK_EQUAL(result.status, Status::ok);
        if (std::string(name) == "make" || std::string(name) == "write" || std::string(name) == "read") CHECK_EQUAL(fact(result, "direct"), "false");
    }
    CHECK(at_open.tree().empty());
    for (const char* call : {"pwritev", "preadv"}) {
        TestStore store(false);
        const std::string name = std::string(call) == "pwritev" ? "write" : "read";
        prepare(store, name);
        bool first = true;
        store.files.instead = [&](size_t, const std::string& made) -> std::optional<int64_t> {
            if (made != call || !std::exchange(first, false)) return std::nullopt;
            return -EINVAL;
        };
        const Result result = run(store, name);
        CHECK_EQUAL(result.status, Status::ok);
        CHECK_EQUAL(fact(result, "direct"), "false");
    }
}

TEST("a survey tells the alignment for O_DIRECT that the file system states, else the one that was tried") {
    TestStore store(false);
    store.files.direct_align = 8192;
    CHECK_EQUAL(fact(run(store, "make"), "direct_align"), "8192");
    TestStore silent(false);
    silent.files.direct_align = FileStat::unknown;
    const Result made = run(silent, "make");
    if (fact(made, "direct") != "true" && test::skipped("no O_DIRECT where the core's tests are")) return;
    CHECK_EQUAL(fact(made, "direct_align"), "");
    run(silent, "write");
    CHECK(!fact(run(silent, "read"), "direct_align_tried").empty());
}

TEST("a survey tells of other bytes than were written, and of fewer, with their place") {
    TestStore store(false);
    prepare(store, "read");
    const std::string block = store.root + "/.kvlane-doctor-1-ab/block";
    std::string bytes = TestStore::contents(block);
    bytes[4096 * 3 + 7] ^= 1;
    TestStore::write_file(block, bytes);
    const Result changed = run(store, "read");
    CHECK_EQUAL(changed.status, Status::corrupt);
    CHECK(fact(changed, "detail").find("offset 12288") != std::string::npos);
    TestStore::write_file(block, bytes.substr(0, 4096));
    CHECK_EQUAL(run(store, "read").status, Status::corrupt);
    store.files.transfer_bytes_max = 0;
    CHECK_EQUAL(run(store, "read").status, Status::corrupt);
    CHECK_EQUAL(run(store, "write").error, EIO);
    // Less at a time is no lie.
    store.files.transfer_bytes_max = 64 * 1024;
    CHECK_EQUAL(run(store, "write").status, Status::ok);
    CHECK_EQUAL(run(store, "read").status, Status::ok);
    // More than was asked for is believed by nobody.
    store.files.forget();
    store.files.after = answering("pwritev", 1 << 30);
    CHECK_EQUAL(run(store, "write").error, EIO);
}

TEST("a survey finds a rename that was said to be done and was not, an exclusive one that replaces, a list without the file") {
    TestStore store(false);
    prepare(store, "rename");
    store.files.instead = answering("rename", 0);
    CHECK_EQUAL(run(store, "exclusive").status, Status::corrupt);
    unsigned renames = 0;
    store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name != "rename" || ++renames != 8) return std::nullopt;
        return 0;
    };
    CHECK_EQUAL(run(store, "rename").status, Status::corrupt);
    store.files.forget();
    store.files.instead = answering("entries", 0);
    CHECK_EQUAL(run(store, "list").status, Status::corrupt);
}

TEST("a survey writes to no file that has a second name, and to nothing that is no file") {
    for (const std::string name : {"block", "other"}) {
        TestStore store(false);
        prepare(store, "write");
        const std::string mine = store.root + "/.kvlane-doctor-1-ab/" + name;
        const std::string theirs = store.root + "/theirs";
        TestStore::write_file(theirs, "somebody's");
        std::filesystem::remove(mine);
        std::filesystem::create_hard_link(theirs, mine);
        const char* const writing = name == "block" ? "write" : "unlinked";
        CHECK_EQUAL(run(store, writing).status, Status::corrupt);
        CHECK_EQUAL(TestStore::contents(theirs), "somebody's");
        std::filesystem::remove(mine);
        CHECK(mkfifo(mine.c_str(), 0600) == 0);
        CHECK(run(store, writing).status != Status::ok);
        std::filesystem::remove(mine);
        std::filesystem::create_symlink(theirs, mine);
        CHECK_EQUAL(run(store, writing).error, ELOOP);
        CHECK_EQUAL(TestStore::contents(theirs), "somebody's");
    }
}

TEST("a survey is content with a link without an exclusive rename, and tells with its errno that there is neither") {
    TestStore store(false);
    prepare(store, "exclusive");
    store.files.refuses_no_replace = true;
    const Result linked = run(store, "exclusive");
    CHECK_EQUAL(linked.status, Status::ok);
    CHECK_EQUAL(fact(linked, "exclusive_rename"), "false");
    store.files.instead = answering("link", -EPERM);
    const Result neither = run(store, "exclusive");
    CHECK_EQUAL(neither.error, EPERM);
    CHECK(fact(neither, "detail").find("neither") != std::string::npos);
}

TEST("a survey that fails, is abandoned or runs out of time at any call leaves no descriptor, and clean removes the rest") {
    enum class How : uint8_t { fails, abandoned, late };
    for (const How how : {How::fails, How::abandoned, How::late}) {
        for (const char* name : steps) {
            for (size_t at = 0;; at++) {
                TestStore store(false);
                prepare(store, name);
                const size_t descriptors = TestStore::open_descriptors();
                store.files.forget();
                const auto op = step(store, name);
                if (how == How::late) op->deadline_us = store.clock.now_us() + 1'000;
                bool reached = false;
                store.files.before = [&](size_t number, const std::string&) {
                    if (number != at) return;
                    reached = true;
                    if (how == How::abandoned) op->abandon();
                    if (how == How::late) store.clock.advance_us(1'000);
                };
                store.files.instead = [&](size_t number, const std::string& call) -> std::optional<int64_t> {
                    if (how == How::fails && number == at && call != "drop_direct") return -EIO;
                    return std::nullopt;
                };
                const Result result = store.run(op);
                CHECK_EQUAL(TestStore::open_descriptors(), descriptors);
                CHECK(json_members(result.text).has_value());
                store.files.forget();
                CHECK_EQUAL(run(store, "clean").status, Status::ok);
                CHECK(store.tree().empty());
                if (!reached) break;
            }
        }
    }
}
