// block_list_test.cc — what a listing tells of directories that anybody may have filled.
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include "../paths.h"
#include "../plain_text.h"
#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

std::shared_ptr<Operation> list(TestStore& store, const std::string& path, uint32_t entries_max = 4096, uint64_t cookie = 0) {
    const auto op = store.operation(Kind::list, LaneClass::metadata);
    op->path = path;
    op->entries_max = entries_max;
    op->number = cookie;
    return op;
}

struct Told {
    std::string cookie;
    std::map<std::string, std::string> entries;  // name → what stands before it
    size_t lines = 0;
};

Told told(const Result& result) {
    Told all;
    std::istringstream in(result.text);
    std::getline(in, all.cookie);
    for (std::string line; std::getline(in, line); all.lines++) {
        size_t at = 0;
        for (int field = 0; field < 6; field++) at = line.find(' ', at) + 1;
        all.entries[line.substr(at)] = line.substr(0, at - 1);
    }
    return all;
}

std::string type_of(const Told& all, const std::string& name) {
    const auto found = all.entries.find(name);
    return found == all.entries.end() ? "-" : found->second.substr(0, 1);
}

}  // namespace

TEST("a listing tells type, room, size, both times and inode of every entry") {
    TestStore store;
    Memory memory(10'000);
    store.run(store.store("aa01", memory));
    TestStore::set_modified(store.path("aa01"), 1'234);
    const Result result = store.run(list(store, "blocks/" + store.name_space + "/aa"));
    CHECK(result.status == Status::ok);
    const Told all = told(result);
    CHECK(all.cookie == "-" && all.lines == 1);
    struct stat found = {};
    CHECK(lstat(store.path("aa01").c_str(), &found) == 0);
    const auto ns = [](const timespec& time) { return std::to_string(static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec)); };
    CHECK(all.entries.at("aa01.kvb") == "f " + std::to_string(found.st_blocks * 512) + " 16384 1234000000000 " + ns(found.st_ctim) + " " + std::to_string(found.st_ino));
}

TEST("each directory of a store can be listed, and one that is not there is not found") {
    TestStore store;
    Memory memory(4096);
    store.run(store.store("aa01", memory));
    CHECK(told(store.run(list(store, "blocks"))).entries.contains(store.name_space));
    CHECK(type_of(told(store.run(list(store, "blocks/" + store.name_space))), "aa") == "d");
    for (const char* path : {"recycle", "recycle/0123456789abcdef", "aside", "namespaces", "collector", "blocks/none", "blocks/none/aa"}) {
        const Result result = store.run(list(store, path));
        CHECK(result.status == Status::not_found && result.error == ENOENT);
    }
    for (const char* path : {"recycle", "recycle/w", "aside", "namespaces", "collector"}) {
        std::filesystem::create_directories(store.root + "/" + path);
        const Result result = store.run(list(store, path));
        CHECK(result.status == Status::ok);
        CHECK(result.text.substr(0, 2) == "-\n");
    }
    CHECK(TestStore::open_descriptors() > 0);
}

TEST("only directories of a store are listed, whatever the path says") {
    TestStore store;
    for (const char* path : {"", ".", "..", "/", "blocks/", "/blocks", "blocks/..", "blocks/../..", "blocks//aa", "blocks/a/b/c", "recycle/w/x", "aside/x", "namespaces/x", "collector/x",
                             "probe/0/x", "kvlane.json", "blocksx"}) {
        const Result result = store.run(list(store, path));
        CHECK(result.status == Status::io_error && result.error == EINVAL && result.phase == Phase::queue);
        CHECK(result.text.find("not a directory of a store") == 0);
    }
    CHECK(!listable("blocks/" + std::string(256, 'a')) && listable("blocks/" + std::string(255, 'a')));
    CHECK(!listable(std::string("blocks/a\0b", 10)));
}

TEST("4,096 entries a call are told, and not one more or none") {
    TestStore store;
    std::filesystem::create_directories(store.root + "/aside");
    CHECK(store.run(list(store, "aside", 4096)).status == Status::ok);
    for (const uint32_t entries : {0U, 4097U, UINT32_MAX}) {
        const Result result = store.run(list(store, "aside", entries));
        CHECK(result.status == Status::io_error && result.error == EINVAL && result.text == "entries must be from 1 to 4096");
    }
}

TEST("a directory is told in pieces, each entry once, also when a piece ends with the directory") {
    TestStore store;
    std::set<std::string> made;
    for (int i = 0; i < 200; i++) {
        const std::string name = "a name of some length, so that one page does not hold them all, " + std::to_string(i);
        TestStore::write_file(store.root + "/aside/" + name, "");
        made.insert(name);
    }
    for (const uint32_t piece : {1U, 7U, 100U, 200U, 4096U}) {
        std::set<std::string> seen;
        size_t lines = 0;
        size_t calls = 0;
        for (std::string cookie = "0"; cookie != "-" && calls < 1000; calls++) {
            const Result result = store.run(list(store, "aside", piece, std::stoull(cookie)));
            CHECK(result.status == Status::ok);
            const Told all = told(result);
            CHECK(all.lines <= piece);
            lines += all.lines;
            for (const auto& [name, rest] : all.entries) seen.insert(name);
            cookie = all.cookie;
        }
        CHECK(seen == made);
        CHECK(lines == made.size());
        CHECK(calls == 200 / piece + 1);  // where a piece is full, only the next call finds the end
    }
}

TEST("names that are no text, or more than one line, come escaped and with a type of their own; others as they are") {
    TestStore store;
    const std::vector<std::pair<std::string, std::string>> names = {
        {"two\nlines", "two%0Alines"}, {"\xff\xfe", "%FF%FE"}, {"an escape\x1b[2J", "an%20escape%1B[2J"}, {"\xc2\x9b", "%C2%9B"}, {"cut \xe2\x82", "cut%20%E2%82"},
        {"\xc0\xaf", "%C0%AF"}, {"\xed\xa0\x80", "%ED%A0%80"}, {"100%\x7f", "100%25%7F"}};
    for (const auto& [name, escaped] : names) TestStore::write_file(store.root + "/aside/" + name, "");
    const std::vector<std::string> plain = {"with blanks  and 100%", "größer", "\xf0\x9f\x98\x80", " "};
    for (const std::string& name : plain) TestStore::write_file(store.root + "/aside/" + name, "");
    const Told all = told(store.run(list(store, "aside")));
    CHECK(all.lines == names.size() + plain.size());
    for (const auto& [name, escaped] : names) CHECK(type_of(all, escaped) == "?");
    for (const std::string& name : plain) CHECK(type_of(all, name) == "f");
}

TEST("links, FIFOs, sockets and directories are told as what they are, and nothing is followed or waited for") {
    TestStore store;
    TestStore::write_file(store.root + "/aside/file", "x");
    const std::string at = store.root + "/aside/";
    CHECK(symlink("/etc/passwd", (at + "link").c_str()) == 0);
    CHECK(symlink("/nowhere", (at + "dangling").c_str()) == 0);
    CHECK(mkfifo((at + "fifo").c_str(), 0600) == 0);
    std::filesystem::create_directory(at + "directory");
    const Result result = store.run(list(store, "aside"));
    CHECK(result.status == Status::ok);
    const Told all = told(result);
    CHECK(type_of(all, "file") == "f" && type_of(all, "link") == "l" && type_of(all, "dangling") == "l" && type_of(all, "fifo") == "o" && type_of(all, "directory") == "d");
    CHECK(all.entries.at("link").find(std::to_string(TestStore::inode(at + "link"))) != std::string::npos);
}

TEST("a directory behind a link is no directory of the store") {
    TestStore store;
    std::filesystem::create_directories(store.root + "/elsewhere");
    CHECK(symlink("elsewhere", (store.root + "/aside").c_str()) == 0);
    CHECK(store.run(list(store, "aside")).status == Status::io_error);
    TestStore::write_file(store.root + "/collector", "a file");
    CHECK(store.run(list(store, "collector")).status == Status::not_found);
}

TEST("an entry that vanishes before it is looked at is left out, one that is damaged or closed is told without numbers") {
    for (const int error : {ENOENT, ESTALE, EIO, EACCES, EUCLEAN}) {
        TestStore store;
        for (const char* name : {"a", "b", "c"}) TestStore::write_file(store.root + "/aside/" + name, "xyz");
        size_t stats = 0;
        std::string hit;
        store.run(list(store, "aside"));
        store.files.forget();
        store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
            if (name == "stat_name" && ++stats == 2) return -error;
            return std::nullopt;
        };
        const Result result = store.run(list(store, "aside"));
        CHECK(result.status == Status::ok);
        const Told all = told(result);
        CHECK(all.lines == (error == ENOENT || error == ESTALE ? 2 : 3));
        size_t told_as_other = 0;
        for (const auto& [name, rest] : all.entries) {
            if (rest == "o 0 0 0 0 " + std::to_string(TestStore::inode(store.root + "/aside/" + name))) told_as_other++;
        }
        CHECK(told_as_other == all.lines - 2);
    }
}

TEST("every call of a listing may fail: it says where, and leaves no descriptor open") {
    TestStore store;
    for (const char* name : {"a", "b", "c"}) TestStore::write_file(store.root + "/aside/" + name, "");
    const Result first = store.run(list(store, "aside", 1));
    const uint64_t cookie = std::stoull(first.text);
    store.files.forget();
    CHECK(store.run(list(store, "aside", 4096, cookie)).status == Status::ok);
    const auto calls = store.files.calls;
    CHECK(store.files.count("seek") == 1 && store.files.count("entries") == 2 && store.files.count("stat_name") == 2);
    for (const int error : {ENOTCONN, ENOMEM, EINVAL}) {
        for (size_t at = 0; at < calls.size(); at++) {
            const size_t descriptors = TestStore::open_descriptors();
            store.lane->close_roots();
            store.files.forget();
            store.run(list(store, "aside", 1));  // the root is open again
            const size_t with_root = TestStore::open_descriptors();
            store.files.forget();
            store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
                if (number == at) return -error;
                return std::nullopt;
            };
            const Result result = store.run(list(store, "aside", 4096, cookie));
            store.files.forget();
            CHECK(TestStore::open_descriptors() == with_root && with_root == descriptors);
            if (calls[at] == "close") continue;
            CHECK(result.status == Status::io_error && result.error == error && result.text == "the directory aside");
        }
    }
}

TEST("a listing that nobody waits for any more makes no further call but to close") {
    TestStore store;
    for (const char* name : {"a", "b", "c"}) TestStore::write_file(store.root + "/aside/" + name, "");
    store.run(list(store, "aside"));
    store.files.forget();
    store.run(list(store, "aside"));
    const size_t calls = store.files.calls.size();
    for (size_t at = 0; at + 1 < calls; at++) {
        store.files.forget();
        const auto op = list(store, "aside");
        store.files.before = [&](size_t number, const std::string&) {
            if (number == at) op->abandon();
        };
        CHECK_EQUAL(store.run(op).status, at + 2 == calls ? Status::ok : Status::expired);  // the last one said that this was all
        CHECK(store.files.calls.size() == at + 2 && store.files.calls.back() == "close");
    }
}

TEST("a directory entry that says nonsense of its length ends the listing, and nothing behind it is read") {
    TestStore store;
    TestStore::write_file(store.root + "/aside/a", "");
    store.run(list(store, "aside"));
    for (const int64_t got : {int64_t{1}, int64_t{19}, int64_t{4096}, int64_t{4097}, int64_t{1} << 40}) {
        store.files.forget();
        store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
            if (name == "entries") {
                std::memset(store.lane->tail_page(), got == 4096 ? 0xff : 0, page_bytes);
                return got;
            }
            return std::nullopt;
        };
        const Result result = store.run(list(store, "aside"));
        CHECK(result.status == Status::io_error && result.error == EIO);
    }
}
