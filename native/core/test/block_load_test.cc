// block_load_test.cc — what a load gives back, and what it makes of damaged and foreign files.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>

#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

const std::string key = "9f3c00";

// A block of 10,000 bytes lies under `key`; `with` gets the file's bytes and returns what shall be there instead.
struct Damaged {
    TestStore store;
    Memory memory{10'000};
    explicit Damaged(const std::function<std::string(std::string)>& with) {
        Memory stored(10'000);
        stored.fill_pattern(7);
        store.run(store.store(key, stored));
        TestStore::write_file(store.path(key), with(TestStore::contents(store.path(key))));
    }
    Result load() { return store.run(store.load(key, memory)); }
    uint64_t inode() const { return TestStore::inode(store.path(key)); }
};

// The header page with one field changed and its checksum put right again.
std::string with_header(std::string file, const std::function<void(HeaderPage&)>& change) {
    HeaderPage page;
    std::memcpy(static_cast<void*>(&page), file.data(), sizeof page);
    change(page);
    page.header_xxh3 = xxh3(&page, offsetof(HeaderPage, header_xxh3));
    std::memcpy(file.data(), &page, sizeof page);
    return file;
}

std::string flipped(std::string file, size_t at) {
    file[at] = static_cast<char>(file[at] ^ 0x10);
    return file;
}

}  // namespace

TEST("a block of any length comes back as it was stored, and no byte beyond it is touched") {
    TestStore store;
    int number = 0;
    for (const uint64_t bytes : {uint64_t{1}, uint64_t{5}, uint64_t{4095}, uint64_t{4096}, uint64_t{4097}, uint64_t{12'288}, uint64_t{1} << 20,
                                 (uint64_t{1} << 20) + 1}) {
        const std::string hex = "aa0" + std::to_string(number++);
        Memory stored(bytes);
        Memory loaded(bytes);
        stored.fill_pattern(bytes);
        stored.mark_rest(0xee);
        loaded.fill(0);
        loaded.mark_rest(0xdd);
        const Result& put = store.run(store.store(hex, stored));
        CHECK(put.status == Status::ok && !put.kept && put.uncached);
        CHECK(std::filesystem::file_size(store.path(hex)) == 4096 + (bytes + 4095) / 4096 * 4096);
        const Result& got = store.run(store.load(hex, loaded));
        CHECK(got.status == Status::ok && got.uncached);
        CHECK(loaded.equals(stored));
        CHECK(loaded.untouched(0xdd));
        // What lay behind the payload in memory went to no file.
        const std::string file = TestStore::contents(store.path(hex));
        CHECK(file.find('\xee', 4096 + bytes) == std::string::npos);
    }
    CHECK(store.leftovers().empty());
}

TEST("header and payload are read in one call") {
    TestStore store;
    Memory memory(100'000);
    memory.fill_pattern(3);
    store.run(store.store(key, memory));
    store.files.forget();
    CHECK(store.run(store.load(key, memory)).status == Status::ok);
    CHECK((store.files.calls == std::vector<std::string>{"open", "stat", "preadv", "close"}));
}

TEST("a block that is not there is not found, in a namespace that is not there too") {
    TestStore store;
    Memory memory(4096);
    CHECK(store.run(store.load(key, memory)).status == Status::not_found);
    CHECK(store.run(store.store("9f3c01", memory)).status == Status::ok);
    const Result& result = store.run(store.load(key, memory));
    CHECK(result.status == Status::not_found && result.phase == Phase::open && !result.uncached);
}

TEST("every kind of damage is named, and only a file that contradicts itself is offered to be set aside") {
    struct Case {
        const char* what;
        std::function<std::string(std::string)> with;
        Status status;
        bool aside;
    };
    const Case cases[] = {
        {"a flipped bit in the payload", [](std::string f) { return flipped(f, 4096 + 17); }, Status::corrupt, true},
        {"a flipped bit in the last, partial page", [](std::string f) { return flipped(f, 4096 + 9'999); }, Status::corrupt, true},
        {"a flipped bit in the header", [](std::string f) { return flipped(f, 300); }, Status::corrupt, true},
        {"a flipped bit in the length", [](std::string f) { return flipped(f, 16); }, Status::corrupt, true},
        {"a flipped bit in the header's checksum", [](std::string f) { return flipped(f, 4090); }, Status::corrupt, true},
        {"an empty file", [](std::string) { return std::string(); }, Status::corrupt, true},
        {"a header page of zeros", [](std::string f) { return f.replace(0, 4096, 4096, '\0'); }, Status::corrupt, true},
        {"nothing but zeros", [](std::string f) { return std::string(f.size(), '\0'); }, Status::corrupt, true},
        {"cut in the header", [](std::string f) { return f.substr(0, 100); }, Status::corrupt, true},
        {"cut one byte before the payload", [](std::string f) { return f.substr(0, 4095); }, Status::corrupt, true},
        {"cut after the header", [](std::string f) { return f.substr(0, 4096); }, Status::corrupt, true},
        {"cut in the payload", [](std::string f) { return f.substr(0, 8192); }, Status::corrupt, true},
        {"cut at an odd length", [](std::string f) { return f.substr(0, 8000); }, Status::corrupt, true},
        {"cut by one byte", [](std::string f) { return f.substr(0, f.size() - 1); }, Status::corrupt, true},
        {"a page too long", [](std::string f) { return f + std::string(4096, 'x'); }, Status::corrupt, true},
        {"a file of somebody else", [](std::string f) { return std::string(f.size(), 'x'); }, Status::corrupt, false},
        {"a short file of somebody else", [](std::string) { return std::string("hello\n"); }, Status::corrupt, false},
        {"a flipped bit in the magic", [](std::string f) { return flipped(f, 1); }, Status::corrupt, false},
        {"the block of another key",
         [](std::string f) { return with_header(f, [](HeaderPage& page) { page.hex[0] = 'e'; }); }, Status::corrupt, false},
        {"the block of another namespace",
         [](std::string f) { return with_header(f, [](HeaderPage& page) { page.name_space[6] = '4'; }); }, Status::corrupt, false},
        {"a flipped bit in the number of the format", [](std::string f) { return flipped(f, 8); }, Status::corrupt, true},
        {"a newer format",
         [](std::string f) { return with_header(f, [](HeaderPage& page) { page.format = 2; }); }, Status::newer_format, false},
        {"a newer format of a size of its own",
         [](std::string f) { return with_header(f, [](HeaderPage& page) { page.format = 9; }) + "tail"; }, Status::newer_format, false},
        {"a length that overflows", [](std::string f) { return with_header(f, [](HeaderPage& page) { page.payload_bytes = ~0ULL - 5; }); },
         Status::corrupt, true},
    };
    for (const Case& c : cases) {
        Damaged damaged(c.with);
        const uint64_t inode = damaged.inode();
        const std::string before = TestStore::contents(damaged.store.path(key));
        const Result& result = damaged.load();
        const bool right = result.status == c.status && result.aside_inode == (c.aside ? inode : 0);
        if (!right) std::printf("  %s: %s, aside %llu, %s\n", c.what, status_name(result.status), static_cast<unsigned long long>(result.aside_inode), result.text.c_str());
        CHECK(right);
        const auto verify = damaged.store.operation(Kind::verify);
        verify->hex = key;
        const Result& verified = damaged.store.run(verify);
        CHECK(verified.status == result.status && verified.aside_inode == result.aside_inode && verified.text == result.text);
        CHECK(TestStore::contents(damaged.store.path(key)) == before);
        CHECK(TestStore::inode(damaged.store.path(key)) == inode);
    }
}

TEST("a valid block of another length says its length and is left alone") {
    TestStore store;
    Memory stored(10'000);
    stored.fill_pattern(1);
    store.run(store.store(key, stored));
    for (const uint64_t wanted : {uint64_t{1}, uint64_t{9'999}, uint64_t{10'001}, uint64_t{12'288}, uint64_t{1} << 20}) {
        Memory memory(wanted);
        memory.mark_rest(0xdd);
        const Result& result = store.run(store.load(key, memory));
        CHECK(result.status == Status::length_mismatch && result.stored_bytes == 10'000 && result.aside_inode == 0);
        CHECK(memory.untouched(0xdd));
    }
}

TEST("what is no regular file is corrupt, is not followed, not waited for, and left alone") {
    TestStore store;
    Memory memory(4096);
    memory.fill_pattern(1);
    store.run(store.store("9f3cff", memory));
    const std::string at = store.path(key);
    const auto outcome = [&](const char* what) {
        const Result& result = store.run(store.load(key, memory));
        const bool right = result.status == Status::corrupt && result.aside_inode == 0;
        if (!right) std::printf("  %s: %s errno %d\n", what, status_name(result.status), result.error);
        std::filesystem::remove_all(at);
        return right;
    };
    std::filesystem::create_directory(at);
    CHECK(outcome("directory"));
    std::filesystem::create_symlink(store.path("9f3cff"), at);
    CHECK(outcome("symbolic link to an absolute path"));
    std::filesystem::create_symlink("9f3cff.kvb", at);
    CHECK(outcome("symbolic link to a neighbour"));
    CHECK(mkfifo(at.c_str(), 0600) == 0);
    CHECK(outcome("FIFO"));
    const int listening = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s", at.c_str());
    if (bind(listening, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) CHECK(outcome("socket"));
    close(listening);
    if (mknod(at.c_str(), S_IFCHR | 0600, makedev(1, 5)) == 0) {  // /dev/zero; root only
        const Result& result = store.run(store.load(key, memory));
        CHECK(result.status == Status::corrupt || result.error == EACCES);  // EACCES: mounted nodev
        std::filesystem::remove_all(at);
    }
}

TEST("a symbolic link in the middle of the path is not followed, for reading or writing") {
    TestStore store;
    const std::string elsewhere = temporary_directory();
    std::filesystem::create_directory(store.root + "/blocks");
    std::filesystem::create_symlink(elsewhere, store.root + "/blocks/" + store.name_space);
    Memory memory(4096);
    CHECK(store.run(store.store(key, memory)).status != Status::ok);
    CHECK(store.run(store.load(key, memory)).status == Status::corrupt);
    CHECK(store.run(store.remove(key)).status != Status::ok);
    CHECK(std::filesystem::is_empty(elsewhere));
    remove_tree(elsewhere);
}

TEST("a name that is not one plain component never becomes a path") {
    TestStore store;
    Memory memory(4096);
    for (const std::string hex : {"", "9", "../../etc", "9f/..", "..", "9F3C", "9f3c\n", "9f.kvb"}) {
        for (const auto& op : {store.load(hex, memory), store.store(hex, memory), store.remove(hex), store.aside(hex, 1)}) {
            const Result& result = store.run(op);
            CHECK(result.status == Status::io_error && result.error == EINVAL);
        }
    }
    for (const std::string name : {"", ".", "..", "a/b", "../x", "@1", "a@", "a@x", "a@12345678901", "-a", "a b"}) {
        store.name_space = name;
        CHECK(store.run(store.load(key, memory)).error == EINVAL);
        CHECK(store.run(store.store(key, memory)).error == EINVAL);
        CHECK(store.run(store.lookup({key})).error == EINVAL);
        CHECK(store.run(store.operation(Kind::name_space)).error == EINVAL);
    }
    CHECK(store.files.calls.empty());
}

TEST("no permission is an input/output error, and nothing is set aside") {
    TestStore store;
    Memory memory(4096);
    store.run(store.store(key, memory));
    store.files.instead = [](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "open") return -EACCES;
        return std::nullopt;
    };
    const Result& result = store.run(store.load(key, memory));
    CHECK(result.status == Status::io_error && result.error == EACCES && result.aside_inode == 0 && result.phase == Phase::open);
}

TEST("an error of any call of a load is that call's error, in its phase, and no descriptor is left open") {
    TestStore store;
    Memory memory(10'000);
    memory.fill_pattern(2);
    store.run(store.store(key, memory));
    const size_t descriptors = TestStore::open_descriptors();
    const Phase phases[] = {Phase::open, Phase::stat, Phase::read};
    for (size_t failing = 0; failing < 3; failing++) {
        store.files.forget();
        store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
            if (number == failing) return -ETIMEDOUT;
            return std::nullopt;
        };
        const Result& result = store.run(store.load(key, memory));
        CHECK(result.status == Status::io_error && result.error == ETIMEDOUT && result.phase == phases[failing]);
        CHECK(TestStore::open_descriptors() == descriptors);
    }
}

TEST("a block that another host removed or replaced is opened once more when its file is gone, then it is not found") {
    TestStore store;
    Memory stored(10'000);
    Memory memory(10'000);
    stored.fill_pattern(2);
    store.run(store.store(key, stored));
    const size_t descriptors = TestStore::open_descriptors();
    struct Case {
        std::vector<size_t> failing;  // calls, counted from the open
        int error;
        Status status;
        Phase phase;
    };
    const Case cases[] = {{{1}, ENOENT, Status::ok, Phase::close},     {{2}, ENOENT, Status::ok, Phase::close},
                          {{1}, ESTALE, Status::ok, Phase::close},     {{2}, ESTALE, Status::ok, Phase::close},
                          {{1, 4}, ENOENT, Status::not_found, Phase::stat}, {{2, 6}, ENOENT, Status::not_found, Phase::read}};
    for (const Case& one : cases) {
        store.files.forget();
        memory.fill(0);
        store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
            for (const size_t failing : one.failing) {
                if (number == failing) return -one.error;
            }
            return std::nullopt;
        };
        const Result& result = store.run(store.load(key, memory));
        CHECK(result.status == one.status && result.phase == one.phase && result.aside_inode == 0);
        CHECK(one.status != Status::ok || memory.equals(stored));
        CHECK(TestStore::open_descriptors() == descriptors);
    }
}

TEST("a load that is abandoned or past its deadline starts no further call but close") {
    TestStore store;
    Memory memory(10'000);
    store.run(store.store(key, memory));
    const size_t descriptors = TestStore::open_descriptors();
    for (const bool by_deadline : {false, true}) {
        for (size_t at = 0; at < 3; at++) {
            store.files.forget();
            const auto op = store.load(key, memory);
            op->deadline_us = store.clock.now_us() + 1000;
            store.files.before = [&](size_t number, const std::string&) {
                if (number != at) return;
                if (by_deadline) store.clock.advance_us(1000);
                else op->abandon();
            };
            const Result& result = store.run(op);
            // The last one is inside the read when it happens: it has all its bytes.
            CHECK(result.status == (at == 2 ? Status::ok : Status::expired));
            CHECK(store.files.calls.size() == (at == 2 ? 4 : at + 2));
            CHECK(store.files.calls.back() == "close");
            CHECK(TestStore::open_descriptors() == descriptors);
        }
    }
}

TEST("short reads are continued from a page, and the end of the file is the end") {
    TestStore store;
    Memory stored(50'000);
    Memory loaded(50'000);
    stored.fill_pattern(9);
    store.run(store.store(key, stored));
    for (const size_t most : {size_t{4096}, size_t{5000}, size_t{8192}, size_t{40'000}}) {
        store.files.forget();
        store.files.transfer_bytes_max = most & ~size_t{511};  // what O_DIRECT can move
        loaded.fill(0);
        CHECK(store.run(store.load(key, loaded)).status == Status::ok);
        CHECK(loaded.equals(stored));
    }
    store.files.forget();
    store.files.instead = [](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "preadv") return 0;
        return std::nullopt;
    };
    CHECK(store.run(store.load(key, loaded)).status == Status::corrupt);
}

TEST("a read that is shorter than a page is no end of the file: the load reads on, and a good block is no damage") {
    for (const bool direct : {true, false}) {
        for (const int64_t crumb : {1, 17, 511, 512, 4'095}) {
            TestStore store;
            Memory stored(10'000);
            Memory loaded(10'000);
            stored.fill_pattern(9);
            loaded.fill(0);
            loaded.mark_rest(0xdd);
            store.run(store.store(key, stored));
            store.files.forget();
            store.files.refuses_direct_open = !direct;
            // Of the first three reads only so much counts, wherever they stop: in the header, in the payload, in the last page.
            store.files.after = [&](size_t, const std::string& name) -> std::optional<int64_t> {
                if (name != "preadv" || store.files.count("preadv") > 3) return std::nullopt;
                return crumb;
            };
            const Result& result = store.run(store.load(key, loaded));
            CHECK_EQUAL(result.status, Status::ok);
            CHECK(result.aside_inode == 0 && loaded.equals(stored) && loaded.untouched(0xdd));
            CHECK_EQUAL(store.files.count("preadv"), size_t{4});
        }
    }
}

TEST("a file that ends where its size says is not asked for more, one that ends before is read until nothing comes") {
    TestStore store;
    Memory stored(10'000);
    Memory loaded(10'000);
    stored.fill_pattern(9);
    store.run(store.store(key, stored));
    TestStore::write_file(store.path(key), TestStore::contents(store.path(key)).substr(0, 100));
    store.files.forget();
    CHECK(store.run(store.load(key, loaded)).status == Status::corrupt);
    CHECK_EQUAL(store.files.count("preadv"), size_t{2});  // it is looked at twice
    store.run(store.store(key, stored, true));
    store.files.forget();
    // Cut while it is read: 100 bytes, then nothing.
    store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name != "preadv") return std::nullopt;
        return store.files.count("preadv") % 2 == 1 ? 100 : 0;
    };
    const Result& result = store.run(store.load(key, loaded));
    CHECK(result.status == Status::corrupt);
    CHECK_EQUAL(store.files.count("preadv"), size_t{4});
}

TEST("without O_DIRECT a load works and is no evidence of health; the lane asks for it once only") {
    for (int way = 0; way < 3; way++) {
        TestStore store;
        Memory stored(10'000);
        Memory loaded(10'000);
        stored.fill_pattern(4);
        if (way == 0) store.files.refuses_direct_open = true;
        if (way == 1) store.files.direct_align = 0;
        if (way == 2) store.files.direct_align = 65'536;
        CHECK(store.run(store.store(key, stored)).status == Status::ok);
        CHECK(store.leftovers().empty());
        for (int i = 0; i < 2; i++) {
            store.files.calls.clear();
            const Result& result = store.run(store.load(key, loaded));
            CHECK(result.status == Status::ok && !result.uncached);
            CHECK(loaded.equals(stored));
        }
        CHECK(store.files.calls.size() == 4);
    }
}

TEST("where the read itself refuses O_DIRECT the load goes on without it") {
    TestStore store;
    Memory stored(10'000);
    Memory loaded(10'000);
    stored.fill_pattern(4);
    store.run(store.store(key, stored));
    store.files.forget();
    store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "preadv" && store.files.count("preadv") == 1) return -EINVAL;
        return std::nullopt;
    };
    const Result& result = store.run(store.load(key, loaded));
    CHECK(result.status == Status::ok && !result.uncached && loaded.equals(stored));
}

TEST("a block that another user wrote is read without O_NOATIME") {
    TestStore store;
    Memory memory(4096);
    memory.fill_pattern(4);
    store.run(store.store(key, memory));
    store.files.forget();
    store.files.refuses_noatime = true;
    CHECK(store.run(store.load(key, memory)).status == Status::ok);
    CHECK(store.files.count("open") == 2);
    store.files.calls.clear();
    CHECK(store.run(store.load(key, memory)).status == Status::ok);
    CHECK(store.files.count("open") == 1);
}
