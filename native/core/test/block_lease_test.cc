// block_lease_test.cc — the number of the lease never goes down, nobody sees half of one, and of many who take it one has it.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "../json_text.h"
#include "../paths.h"
#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

std::shared_ptr<Operation> lease(TestStore& store, LeaseAction action, uint64_t number = 0, const std::string& text = "") {
    const auto op = store.operation(Kind::lease, LaneClass::metadata);
    op->lease = action;
    op->number = number;
    op->text = text;
    return op;
}

Result look(TestStore& store) { return store.run(lease(store, LeaseAction::look)); }
Result take(TestStore& store, uint64_t number, const std::string& text = "me") { return store.run(lease(store, LeaseAction::take, number, text)); }
Result renew(TestStore& store, uint64_t number, const std::string& text = "me again") { return store.run(lease(store, LeaseAction::renew, number, text)); }
Result leave(TestStore& store, uint64_t number) { return store.run(lease(store, LeaseAction::leave, number)); }

std::string at(const TestStore& store, const std::string& name) { return store.root + "/collector/" + name; }

std::string field(const Result& result, const char* name) {
    const auto members = json_members(result.text);
    if (!members || !members->contains(name)) return "-";
    const std::string value = members->find(name)->second;
    return value.starts_with('"') ? value.substr(1, value.size() - 2) : value;
}
std::string number(const Result& result) { return field(result, "number"); }

uint64_t modified_ns(const std::string& file) {
    struct stat found = {};
    if (stat(file.c_str(), &found) != 0) return 0;
    return static_cast<uint64_t>(found.st_mtim.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(found.st_mtim.tv_nsec);
}

std::set<std::string> names(const TestStore& store) {
    std::set<std::string> all;
    if (!std::filesystem::exists(store.root + "/collector")) return all;
    for (const auto& entry : std::filesystem::directory_iterator(store.root + "/collector")) all.insert(entry.path().filename());
    return all;
}

uint64_t highest(const TestStore& store) {
    uint64_t most = 0;
    for (const std::string& name : names(store)) most = std::max(most, lease_number(name));
    return most;
}

}  // namespace

TEST("a lease is looked at, taken, renewed and left; the next one takes the next number at once") {
    TestStore store;
    CHECK_EQUAL(look(store).text, std::string("{\"number\":0,\"content\":\"\",\"modified_ns\":\"0\"}"));
    CHECK(names(store).empty());  // a look makes nothing
    const Result took = take(store, 1, "host a, 4711, 1");
    CHECK(took.status == Status::ok && took.uncached);
    CHECK(number(took) == "1" && field(took, "modified_ns") == std::to_string(modified_ns(at(store, "1"))));
    struct statfs whole = {};
    CHECK(statfs(store.root.c_str(), &whole) == 0);
    CHECK_EQUAL(field(took, "total_bytes"), std::to_string(static_cast<uint64_t>(whole.f_blocks) * static_cast<uint64_t>(whole.f_frsize)));  // a share of it may be the limit
    CHECK_EQUAL(look(store).text, "{\"number\":1,\"content\":\"host a, 4711, 1\",\"modified_ns\":\"" + std::to_string(modified_ns(at(store, "1"))) + "\"}");
    TestStore::set_modified(at(store, "1"), 1'000);
    const Result renewed = renew(store, 1, "host a, 4711, 2");
    CHECK(renewed.status == Status::ok && field(renewed, "modified_ns") == std::to_string(modified_ns(at(store, "1"))) && modified_ns(at(store, "1")) > 1'000'000'000'000);
    CHECK_EQUAL(field(look(store), "content"), std::string("host a, 4711, 2"));
    CHECK_EQUAL(leave(store, 1).status, Status::ok);
    const Result left = look(store);
    CHECK(number(left) == "1" && field(left, "content") == "left");
    CHECK_EQUAL(take(store, 2, "host b").status, Status::ok);
    CHECK((names(store) == std::set<std::string>{"1", "2", "made", "want"}));
    CHECK_EQUAL(take(store, 3, "host c").status, Status::ok);
    CHECK((names(store) == std::set<std::string>{"2", "3", "made", "want"}));
    CHECK(store.leftovers().empty());
}

TEST("the directory and the file are for the users that the store is for") {
    TestStore store;
    const auto op = lease(store, LeaseAction::take, 1, "me");
    op->file_mode = 0640;
    LaneContext::prepare_thread();
    CHECK_EQUAL(store.run(op).status, Status::ok);
    CHECK((std::filesystem::status(at(store, "1")).permissions() & std::filesystem::perms::all) == std::filesystem::perms{0640});
    CHECK((std::filesystem::status(store.root + "/collector").permissions() & std::filesystem::perms::all) == std::filesystem::perms{0750});
}

TEST("a number that is taken, or lower than the highest, is fenced, and so is every renewal and leaving of it") {
    TestStore store;
    CHECK_EQUAL(take(store, 5).status, Status::ok);
    for (const uint64_t n : {uint64_t{1}, uint64_t{4}, uint64_t{5}}) {
        const Result result = take(store, n, "another");
        CHECK(result.status == Status::fenced && number(result) == "5");
    }
    for (const uint64_t n : {uint64_t{4}, uint64_t{6}}) {
        CHECK(renew(store, n).status == Status::fenced && leave(store, n).status == Status::fenced);
    }
    CHECK((names(store) == std::set<std::string>{"5", "made", "want"}));
    CHECK_EQUAL(TestStore::contents(at(store, "5")), std::string("me"));
    CHECK_EQUAL(take(store, 6, "another").status, Status::ok);
    const Result result = renew(store, 5);
    CHECK(result.status == Status::fenced && number(result) == "6");
    CHECK_EQUAL(TestStore::contents(at(store, "5")), std::string("me"));
    CHECK(leave(store, 5).status == Status::fenced);
}

TEST("numbers end with fifteen digits, and a content is one line of 1 to 1,024 bytes; what is beyond is refused and nothing made") {
    TestStore store;
    const auto refused = [&](const Result& result, const char* words) {
        return result.status == Status::io_error && result.error == EINVAL && result.phase == Phase::queue && result.text.find(words) != std::string::npos;
    };
    for (const uint64_t n : {uint64_t{0}, lease_number_max + 1, ~uint64_t{0}}) {
        CHECK(refused(take(store, n), "must be from 1 to 999999999999999"));
        CHECK(refused(renew(store, n), "must be from 1 to 999999999999999") && refused(leave(store, n), "must be from 1 to"));
    }
    for (const std::string& text : {std::string(), std::string(1025, 'x'), std::string("two\nlines"), std::string("\xff"), std::string("a\0b", 3)}) {
        CHECK(refused(take(store, 1, text), "one line of 1 to 1024 bytes") && refused(renew(store, 1, text), "one line of 1 to 1024 bytes"));
    }
    CHECK(names(store).empty());
    CHECK_EQUAL(take(store, lease_number_max, std::string(1024, 'x')).status, Status::ok);
    CHECK(number(look(store)) == "999999999999999" && field(look(store), "content") == std::string(1024, 'x'));
}

TEST("of many who take the same number one has it, and what the others hear is fenced") {
    TestStore store;
    std::atomic<int> took{0}, fenced{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 6; i++) {
        const auto op = lease(store, LeaseAction::take, 9, "taker " + std::to_string(i));
        threads.emplace_back([&store, &took, &fenced, op] {
            WatchWord word;
            LaneContext lane(posix_file_system(), word, store.clock);
            const Result result = store.run(op, lane);
            if (result.status == Status::ok) took++;
            if (result.status == Status::fenced && number(result) == "9") fenced++;
            lane.close_roots();
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(took == 1 && fenced == 5);
    CHECK((names(store) == std::set<std::string>{"9", "made", "want"}));
    CHECK(store.leftovers().empty());
}

TEST("while many take one number after the other, the number that is seen never goes down and is never empty") {
    TestStore store;
    std::atomic<bool> over{false};
    std::atomic<int> wrong{0};
    std::thread watcher([&] {
        WatchWord word;
        LaneContext lane(posix_file_system(), word, store.clock);
        uint64_t before = 0;
        while (!over) {
            const Result result = store.run(lease(store, LeaseAction::look), lane);
            if (result.status == Status::io_error && result.error == ENOENT) continue;  // taken over three times while it looked
            const uint64_t now = result.status == Status::ok ? std::stoull(number(result)) : 0;
            if (result.status != Status::ok || now < before || (now > 0 && field(result, "content").empty())) wrong++;
            before = now;
        }
        lane.close_roots();
    });
    std::vector<std::thread> takers;
    std::atomic<uint64_t> total{0};
    for (int i = 0; i < 3; i++) {
        takers.emplace_back([&store, &total, i] {
            WatchWord word;
            LaneContext lane(posix_file_system(), word, store.clock);
            for (int round = 0; round < 30; round++) {
                const Result seen = store.run(lease(store, LeaseAction::look), lane);
                if (seen.status != Status::ok) continue;
                const uint64_t next = std::stoull(number(seen)) + 1;
                if (store.run(lease(store, LeaseAction::take, next, "taker " + std::to_string(i)), lane).status != Status::ok) continue;
                total++;
                store.run(lease(store, LeaseAction::renew, next, "taker " + std::to_string(i) + " again"), lane);
                if (round % 3 == 0) store.run(lease(store, LeaseAction::leave, next), lane);
            }
            lane.close_roots();
        });
    }
    for (std::thread& thread : takers) thread.join();
    over = true;
    watcher.join();
    CHECK(wrong == 0);
    CHECK(total >= 1 && highest(store) >= total);  // one number was never given twice
    CHECK(names(store).size() <= 4);
    CHECK(store.leftovers().empty());
}

TEST("a renewal that is overtaken between look and rename is fenced, and does not hide the new lease") {
    for (const char* when : {"create", "rename"}) {
        for (const int ahead : {1, 3}) {
            TestStore store;
            take(store, 7);
            WatchWord word;
            LaneContext other(posix_file_system(), word, store.clock);
            store.files.forget();
            bool once = false;
            store.files.before = [&](size_t, const std::string& name) {
                if (name != when || std::exchange(once, true)) return;
                for (int i = 1; i <= ahead; i++) store.run(lease(store, LeaseAction::take, 7 + static_cast<uint64_t>(i), "other"), other);
            };
            const Result result = renew(store, 7);
            CHECK(result.status == Status::fenced && number(result) == std::to_string(7 + ahead));
            store.files.forget();
            CHECK(number(look(store)) == std::to_string(7 + ahead) && field(look(store), "content") == "other");
            // What its late rename may have brought back is a number far below, which fences nobody and is fenced itself.
            const auto remove = store.remove("c0ffee");
            Memory memory(4096);
            store.run(store.store("c0ffee", memory));
            remove->fence = 8;
            CHECK_EQUAL(store.run(remove).status, Status::fenced);
            CHECK_EQUAL(renew(store, 7).status, Status::fenced);
            other.close_roots();
        }
    }
}

TEST("a take that others went past while it was stuck is fenced and leaves no number behind") {
    TestStore store;
    take(store, 7);
    WatchWord word;
    LaneContext other(posix_file_system(), word, store.clock);
    store.files.forget();
    bool once = false;
    store.files.before = [&](size_t, const std::string& name) {
        if (name != "rename" || std::exchange(once, true)) return;
        for (uint64_t n = 8; n <= 10; n++) {
            store.run(lease(store, LeaseAction::take, n, "other"), other);
            if (n == 10) std::filesystem::remove(at(store, "8"));
        }
    };
    const Result result = take(store, 8);
    CHECK(result.status == Status::fenced && number(result) == "10");
    CHECK((names(store) == std::set<std::string>{"9", "10", "made", "want"}));
    other.close_roots();
}

TEST("what was begun and never published goes after ten minutes by the file system's clock, with the next take") {
    TestStore store;
    take(store, 1);
    TestStore::write_file(at(store, "2.0123456789abcdef-1.tmp"), "young");
    TestStore::write_file(at(store, "999999999999999.0123456789abcdef-18446744073709551615.tmp"), "also");
    std::set<std::string> theirs = {"x.tmp", "2.tmp", "02.0123456789abcdef-1.tmp", "2.0123456789abcde-1.tmp", "2.0123456789abcdeF-1.tmp", "2.0123456789abcdef-.tmp",
                                    "2.0123456789abcdef-123456789012345678901.tmp", "2.0123456789abcdef-x.tmp", "2.0123456789abcdef.tmp", "1000000000000000.0123456789abcdef-1.tmp", "2.0123456789abcdef-1.tmp2", "want.0123456789abcdef-1.tmp"};
    for (const std::string& name : theirs) TestStore::write_file(at(store, name), "somebody's");
    CHECK_EQUAL(take(store, 2).status, Status::ok);
    CHECK(names(store).size() == 6 + theirs.size());  // both are young
    // A time of change cannot be set; so the new lease is from the future.
    store.files.forget();
    const auto op = lease(store, LeaseAction::take, 3, "me");
    store.files.after = [&](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "rename") {
            const timespec times[2] = {{4'000'000'000, 0}, {4'000'000'000, 0}};
            utimensat(AT_FDCWD, at(store, "3").c_str(), times, 0);
        }
        return std::nullopt;
    };
    CHECK_EQUAL(store.run(op).status, Status::ok);
    theirs.insert({"2", "3", "made", "want"});
    CHECK(names(store) == theirs);  // what has not exactly the name of one stays
}

TEST("whatever lies in collector/, a look says the highest number, follows nothing and waits for nothing") {
    TestStore store;
    std::filesystem::create_directories(store.root + "/collector");
    const std::string nine = at(store, "9");
    const auto seen = [&](const std::string& content) {
        const Result result = look(store);
        const bool right = result.status == Status::ok && number(result) == "9" && field(result, "content") == content;
        std::filesystem::remove_all(nine);
        return right;
    };
    std::filesystem::create_directory(nine);
    CHECK(seen(""));
    CHECK(symlink("/etc/passwd", nine.c_str()) == 0);
    CHECK(seen(""));
    CHECK(mkfifo(nine.c_str(), 0600) == 0);
    CHECK(seen(""));
    TestStore::write_file(nine, "");
    CHECK(seen(""));
    TestStore::write_file(nine, std::string(100'000, 'x'));
    CHECK(seen(""));
    TestStore::write_file(nine, "two\nlines \xff");
    CHECK(seen("two%0Alines%20%FF"));
    TestStore::write_file(nine, "a \"quoted\" \\ text");
    CHECK(seen("a \\\"quoted\\\" \\\\ text"));
    for (const char* name : {"09", "0", "-1", "1e3", "9999999999999999", "8.tmp", "two\nlines"}) TestStore::write_file(at(store, name), "x");
    CHECK(number(look(store)) == "0");
    // It stands in nobody's way: whoever has watched it for long takes the next one.
    std::filesystem::create_directory(nine);
    CHECK_EQUAL(take(store, 10).status, Status::ok);
    CHECK_EQUAL(renew(store, 10).status, Status::ok);
}

TEST("a directory collector/ that is a link or a file is no place for a lease") {
    for (const bool link : {true, false}) {
        TestStore store;
        std::filesystem::create_directories(store.root + "/elsewhere");
        if (link) CHECK(symlink("elsewhere", (store.root + "/collector").c_str()) == 0);
        else TestStore::write_file(store.root + "/collector", "x");
        CHECK(look(store).status == Status::io_error && take(store, 1).status == Status::io_error);
        CHECK(std::filesystem::is_empty(store.root + "/elsewhere"));
    }
}

TEST("a highest one that vanishes while it is opened is looked for again, three times") {
    for (const size_t times : {size_t{2}, size_t{3}}) {
        TestStore store;
        take(store, 1);
        store.files.forget();
        size_t opened = 0;
        size_t gone = 0;
        store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
            if (name == "open" && ++opened % 2 == 0 && gone++ < times) return -ENOENT;
            return std::nullopt;
        };
        const Result result = look(store);
        CHECK(times == 2 ? result.status == Status::ok && number(result) == "1" : result.status == Status::io_error && result.error == ENOENT);
    }
}

TEST("where names cannot be taken exclusively by a rename a link does it") {
    TestStore store;
    store.files.refuses_no_replace = true;
    CHECK_EQUAL(take(store, 1).status, Status::ok);
    CHECK_EQUAL(take(store, 1).status, Status::fenced);
    CHECK_EQUAL(renew(store, 1).status, Status::ok);
    CHECK(store.leftovers().empty());
}

TEST("every call of a take, a renewal, a leaving and a look may fail or lose its answer: the number does not go down, nothing is half written, nothing is left open") {
    for (const LeaseAction action : {LeaseAction::look, LeaseAction::take, LeaseAction::renew, LeaseAction::leave}) {
        for (const bool lost : {false, true}) {
            for (const int error : {EIO, ENOSPC, EACCES}) {
                bool more = true;
                for (size_t failing = 0; more && failing < 40; failing++) {
                    TestStore store;
                    take(store, 6, "six");
                    take(store, 7, "seven");
                    for (const char* sign : {"want", "made"}) std::filesystem::remove(at(store, sign));
                    const size_t descriptors = TestStore::open_descriptors();
                    store.files.forget();
                    more = false;
                    const auto answer = [&](size_t call, const std::string&) -> std::optional<int64_t> {
                        if (call != failing) return std::nullopt;
                        more = true;
                        return -error;
                    };
                    if (lost) store.files.after = answer;
                    else store.files.instead = answer;
                    const Result result = store.run(lease(store, action, action == LeaseAction::take ? 8 : 7, "new"));
                    store.files.forget();
                    CHECK(TestStore::open_descriptors() == descriptors);
                    CHECK(highest(store) >= (action == LeaseAction::take && result.status == Status::ok ? 8 : 7));
                    for (const std::string& name : names(store)) {
                        if (lease_number(name) != 0 && error != ENOSPC) CHECK(!TestStore::contents(at(store, name)).empty());
                    }
                    if (result.status == Status::ok && action == LeaseAction::take && error != ENOSPC) CHECK_EQUAL(TestStore::contents(at(store, "8")), std::string("new"));
                    if (result.status == Status::io_error || result.status == Status::no_space) CHECK_EQUAL(result.error, error);
                    else CHECK(result.status == Status::ok || (lost && result.status == Status::fenced));
                }
                CHECK(!more);  // all calls have had their turn
            }
        }
    }
}

TEST("a file system that claims more than can be counted has no size, rather than a small one") {
    TestStore store;
    CHECK_EQUAL(take(store, 1).status, Status::ok);
    for (const uint64_t blocks : {(uint64_t{1} << 52) + 1, uint64_t{1} << 63, ~uint64_t{0}}) {
        store.files.blocks = blocks;
        const Result renewed = renew(store, 1);
        CHECK_EQUAL(renewed.status, Status::ok);
        CHECK(field(renewed, "total_bytes") == "-" || field(renewed, "total_bytes") == "0");
    }
    store.files.blocks = 1000;
    CHECK(std::stoull(field(renew(store, 1), "total_bytes")) % 1000 == 0);
}

TEST("on a full disk a lease is taken empty and renewed by its time, which is what others watch") {
    for (const int error : {ENOSPC, EDQUOT}) {
        TestStore store;
        store.files.instead = [error](size_t, const std::string& name) -> std::optional<int64_t> {
            if (name == "pwritev" || name == "write") return -error;
            return std::nullopt;
        };
        CHECK_EQUAL(take(store, 1).status, Status::ok);
        CHECK_EQUAL(take(store, 1).status, Status::fenced);
        const Result before = look(store);
        CHECK_EQUAL(number(before), "1");
        CHECK_EQUAL(field(before, "content"), "");
        Result renewed;
        do renewed = renew(store, 1);
        while (renewed.status == Status::ok && field(renewed, "modified_ns") == field(before, "modified_ns"));  // a coarse clock
        CHECK_EQUAL(renewed.status, Status::ok);
        CHECK_EQUAL(field(look(store), "modified_ns"), field(renewed, "modified_ns"));
        CHECK_EQUAL(leave(store, 1).status, Status::no_space);  // it is not said; who watches sees it after a while
        CHECK_EQUAL(renew(store, 2).status, Status::fenced);
        CHECK(store.leftovers().empty());
    }
}

TEST("a lease operation that is abandoned before the name changes leaves all as it was; once it has begun, it has begun") {
    for (const LeaseAction action : {LeaseAction::take, LeaseAction::renew, LeaseAction::leave}) {
        bool more = true;
        for (size_t call = 0; more && call < 40; call++) {
            TestStore store;
            take(store, 7, "seven");
            store.files.forget();
            const auto op = lease(store, action, action == LeaseAction::take ? 8 : 7, "new");
            State state = State::done;
            more = false;
            store.files.before = [&](size_t number_of_call, const std::string&) {
                if (number_of_call != call) return;
                more = true;
                state = op->abandon();
            };
            const Result result = store.run(op);
            store.files.forget();
            if (!more) continue;
            const bool changed = names(store).contains("8") || TestStore::contents(at(store, "7")) != "seven";
            CHECK(changed == (state == State::committing));
            if (!changed) CHECK_EQUAL(result.status, Status::expired);
            CHECK(store.leftovers().empty());
        }
        CHECK(!more);
    }
}

namespace {

Result listen(TestStore& store, const std::string& sign) { return store.run(lease(store, LeaseAction::listen, 0, sign)); }
Result tell(TestStore& store, const std::string& sign) { return store.run(lease(store, LeaseAction::tell, 0, sign)); }

}  // namespace

TEST("a sign is made with the lease, heard by its time, and changed by whoever tells it") {
    TestStore store;
    for (const std::string sign : {"want", "made"}) {
        CHECK(listen(store, sign).status == Status::ok && field(listen(store, sign), "modified_ns") == "0");
        const Result none = tell(store, sign);
        CHECK(none.status == Status::io_error && none.error == ENOENT);  // nobody would hear it
    }
    CHECK(names(store).empty());
    take(store, 1);
    for (const std::string sign : {"want", "made"}) {
        TestStore::set_modified(at(store, sign), 1'000);
        const std::string before = field(listen(store, sign), "modified_ns");
        CHECK(before != "0");
        CHECK_EQUAL(tell(store, sign).status, Status::ok);
        CHECK(field(listen(store, sign), "modified_ns") != before);
        CHECK_EQUAL(field(listen(store, sign), "modified_ns"), std::to_string(modified_ns(at(store, sign))));
        CHECK(std::filesystem::file_size(at(store, sign)) == 0);
    }
    for (const std::string other : {"", "1", "../want", "wants"}) {
        for (const LeaseAction action : {LeaseAction::listen, LeaseAction::tell}) {
            const Result result = store.run(lease(store, action, 0, other));
            CHECK(result.status == Status::io_error && result.error == EINVAL && result.phase == Phase::queue);
        }
    }
}

TEST("a sign that is gone, or could not be made for want of room, is made by the next renewal; the lease does not depend on it") {
    size_t without = 0;
    for (size_t failing = 0; failing < 40; failing++) {
        TestStore store;
        look(store);  // the root is open
        store.files.forget();
        store.files.instead = [&](size_t call, const std::string& name) -> std::optional<int64_t> {
            if (call == failing && name == "create") return -ENOSPC;
            return std::nullopt;
        };
        const Result took = take(store, 1);
        store.files.forget();
        if (took.status != Status::ok || names(store).size() == 3) continue;
        without++;
        CHECK((names(store) == std::set<std::string>{"1", "made"} || names(store) == std::set<std::string>{"1", "want"}));
        CHECK_EQUAL(renew(store, 1).status, Status::ok);
        CHECK((names(store) == std::set<std::string>{"1", "made", "want"}));
    }
    CHECK_EQUAL(without, size_t{2});
}

TEST("whatever stands in the place of a sign is not followed, not waited for, not changed, and never heard") {
    const std::vector<std::pair<const char*, std::function<void(const std::string&)>>> things = {
        {"a directory", [](const std::string& path) { std::filesystem::create_directory(path); }},
        {"a FIFO", [](const std::string& path) { CHECK(mkfifo(path.c_str(), 0600) == 0); }},
        {"a link", [](const std::string& path) { CHECK(symlink("../elsewhere", path.c_str()) == 0); }},
        {"a link to nothing", [](const std::string& path) { CHECK(symlink("../nothing", path.c_str()) == 0); }},
        {"another name of a file", [](const std::string& path) { std::filesystem::create_hard_link(std::filesystem::path(path).parent_path().parent_path() / "elsewhere", path); }},
        {"a file with something in it", [](const std::string& path) { TestStore::write_file(path, "x"); }},
    };
    for (const auto& [what, put] : things) {
        for (const std::string sign : {"want", "made"}) {
            TestStore store;
            TestStore::write_file(store.root + "/elsewhere", "");
            TestStore::set_modified(store.root + "/elsewhere", 1'000);
            const uint64_t then = modified_ns(store.root + "/elsewhere");
            std::filesystem::create_directory(store.root + "/collector");
            put(at(store, sign));
            struct stat before = {};
            CHECK(lstat(at(store, sign).c_str(), &before) == 0);
            CHECK_EQUAL(take(store, 1).status, Status::ok);
            CHECK_EQUAL(renew(store, 1).status, Status::ok);
            const Result heard = listen(store, sign);
            CHECK(heard.status == Status::ok ? field(heard, "modified_ns") == "0" : heard.status == Status::io_error && heard.error == ELOOP);
            CHECK_EQUAL(tell(store, sign).status, Status::io_error);
            struct stat after = {};
            CHECK(lstat(at(store, sign).c_str(), &after) == 0);
            CHECK(before.st_ino == after.st_ino && before.st_mtim.tv_sec == after.st_mtim.tv_sec && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
            CHECK(modified_ns(store.root + "/elsewhere") == then && !std::filesystem::exists(store.root + "/nothing"));
        }
    }
}

TEST("a sign that may not be opened, and every call of it that fails or loses its answer, is an error of that alone: nothing is left open") {
    for (const LeaseAction action : {LeaseAction::listen, LeaseAction::tell}) {
        for (const bool lost : {false, true}) {
            for (const int error : {EIO, ENOSPC, EDQUOT, EACCES}) {
                bool more = true;
                for (size_t failing = 0; more && failing < 10; failing++) {
                    TestStore store;
                    take(store, 1);
                    const size_t descriptors = TestStore::open_descriptors();
                    store.files.forget();
                    more = false;
                    const auto answer = [&](size_t call, const std::string&) -> std::optional<int64_t> {
                        if (call != failing) return std::nullopt;
                        more = true;
                        return -error;
                    };
                    if (lost) store.files.after = answer;
                    else store.files.instead = answer;
                    const Result result = store.run(lease(store, action, 0, "want"));
                    store.files.forget();
                    CHECK(TestStore::open_descriptors() == descriptors);
                    if (result.status != Status::ok) CHECK(result.error == error && result.status == (error == ENOSPC || error == EDQUOT ? Status::no_space : Status::io_error));
                    CHECK((names(store) == std::set<std::string>{"1", "made", "want"}));
                }
                CHECK(!more);
            }
        }
    }
}
