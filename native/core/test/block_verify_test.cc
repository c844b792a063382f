// block_verify_test.cc — a block is read whole and judged as by a load (its table of damages asks both), and nothing is changed.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

const std::string key = "c0ffee";
constexpr uint64_t piece = 256 * 1024;

std::shared_ptr<Operation> verify(TestStore& store, const std::string& hex = key) {
    const auto op = store.operation(Kind::verify);
    op->hex = hex;
    return op;
}

// A block of so many bytes under `key`.
void put(TestStore& store, uint64_t bytes, uint64_t seed = 5) {
    Memory memory(bytes);
    memory.fill_pattern(seed);
    store.run(store.store(key, memory, true));
}

}  // namespace

TEST("a block of any length is found good and its length told, also where pieces end with header, payload or file") {
    for (const uint64_t bytes : {uint64_t{1}, uint64_t{4096}, uint64_t{10'000}, piece - 4097, piece - 4096, piece - 4095, piece, 2 * piece - 4096, 2 * piece - 4095, 3 * piece + 1}) {
        TestStore store;
        put(store, bytes);
        const std::string before = TestStore::contents(store.path(key));
        const Result result = store.run(verify(store));
        CHECK_EQUAL(result.status, Status::ok);
        CHECK_EQUAL(result.stored_bytes, bytes);
        CHECK(result.uncached && result.aside_inode == 0 && result.text.empty());
        CHECK(TestStore::contents(store.path(key)) == before);
    }
}

TEST("one flipped bit is found in whichever piece it lies, and so is a block of which the last piece is missing") {
    for (const uint64_t at : {uint64_t{4096}, piece - 1, piece, 2 * piece - 1, 2 * piece, 3 * piece + 4095}) {
        TestStore store;
        put(store, 3 * piece);
        std::string file = TestStore::contents(store.path(key));
        file[at] = static_cast<char>(file[at] ^ 1);
        TestStore::write_file(store.path(key), file);
        const Result result = store.run(verify(store));
        CHECK_EQUAL(result.status, Status::corrupt);
        CHECK(result.text == "the payload does not fit its checksum");
        CHECK(result.aside_inode == TestStore::inode(store.path(key)));  // told, for whoever wants to set it aside; it lies where it was
        CHECK(TestStore::contents(store.path(key)) == file);
    }
    TestStore store;
    put(store, 3 * piece);
    store.files.forget();
    store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "preadv" && store.files.count("preadv") % 3 == 0) return 0;  // the size stays as it was
        return std::nullopt;
    };
    const Result cut = store.run(verify(store));
    CHECK(cut.status == Status::corrupt && cut.text == "it ends before its length");
}

TEST("a block that is not there is not found, and what is no file is corrupt and not waited for") {
    TestStore store;
    CHECK(store.run(verify(store)).status == Status::not_found);
    put(store, 4096);
    CHECK(store.run(verify(store, "c0ffef")).status == Status::not_found);
    for (const char* hex : {"", "..", "c0/ffee", "C0FFEE"}) {
        const Result result = store.run(verify(store, hex));
        CHECK(result.status == Status::io_error && result.error == EINVAL && result.phase == Phase::queue);
    }
    const std::string at = store.path("c0ff00");
    const auto outcome = [&] {
        const Result result = store.run(verify(store, "c0ff00"));
        std::filesystem::remove_all(at);
        return result.status == Status::corrupt && result.aside_inode == 0;
    };
    std::filesystem::create_directory(at);
    CHECK(outcome());
    std::filesystem::create_symlink("c0ffee.kvb", at);
    CHECK(outcome());
    CHECK(mkfifo(at.c_str(), 0600) == 0);
    CHECK(outcome());
}

TEST("short reads and crumbs are read on from, and O_DIRECT is done without where it is not to be had") {
    for (const size_t most : {size_t{4096}, size_t{5120}, size_t{100'000 / 512 * 512}}) {
        TestStore store;
        put(store, 2 * piece + 7);
        store.files.forget();
        store.files.transfer_bytes_max = most;
        const Result result = store.run(verify(store));
        CHECK(result.status == Status::ok && result.stored_bytes == 2 * piece + 7);
    }
    for (const int64_t crumb : {1, 511, 4095}) {
        TestStore store;
        put(store, 2 * piece + 7);
        store.files.forget();
        store.files.after = [&](size_t, const std::string& name) -> std::optional<int64_t> {
            if (name != "preadv" || store.files.count("preadv") % 2 == 0) return std::nullopt;
            return crumb;
        };
        CHECK_EQUAL(store.run(verify(store)).status, Status::ok);
    }
    TestStore store;
    put(store, piece);
    store.files.refuses_direct_open = true;
    const Result buffered = store.run(verify(store));
    CHECK(buffered.status == Status::ok && !buffered.uncached);
    store.files.refuses_direct_open = false;
    store.lane->close_roots();
    store.files.forget();
    store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "preadv" && store.files.count("drop_direct") == 0 && store.files.count("open") > 1) return -EINVAL;
        return std::nullopt;
    };
    CHECK_EQUAL(store.run(verify(store)).status, Status::ok);
    CHECK_EQUAL(store.files.count("drop_direct"), size_t{1});
}

TEST("a block that is overwritten while it is read is looked at again, and is no damage") {
    // The first account is of a file that is damaged under it; the second finds what has the name by then.
    for (const int then : {0, 1, 2}) {
        TestStore store;
        put(store, 2 * piece);
        WatchWord word;
        LaneContext other(posix_file_system(), word, store.clock);
        Memory fresh(2 * piece);
        fresh.fill_pattern(77);
        store.files.forget();
        store.files.before = [&](size_t, const std::string& name) {
            if (name != "preadv" || store.files.count("preadv") != 2) return;
            std::string file = TestStore::contents(store.path(key));
            file[2 * piece] = static_cast<char>(file[2 * piece] ^ 1);
            if (then == 0) TestStore::write_file(store.path(key), file);          // damaged for good
            if (then != 0) {                                                      // in the file that is open, and then the name goes
                TestStore::write_file(store.path(key), file);
                if (then == 1) store.run(store.store(key, fresh, true), other);
                else std::filesystem::remove(store.path(key));
            }
        };
        const Result result = store.run(verify(store));
        CHECK_EQUAL(result.status, then == 0 ? Status::not_found : then == 1 ? Status::ok : Status::not_found);
        store.files.forget();
        if (then == 0) CHECK_EQUAL(store.run(verify(store)).status, Status::corrupt);  // it says the same twice now
        other.close_roots();
    }
}

TEST("a block that another host took away meanwhile is opened once more, then it is not found") {
    for (const int error : {ESTALE, ENOENT}) {
        for (const char* call : {"stat", "preadv"}) {
            for (const size_t times : {size_t{1}, size_t{2}}) {
                TestStore store;
                put(store, 10'000);
                store.run(verify(store));
                store.files.forget();
                size_t seen = 0;
                store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
                    if (name == call && seen++ < times && store.files.count("open_root") == 0) return -error;
                    return std::nullopt;
                };
                const Result result = store.run(verify(store));
                if (times == 1) CHECK_EQUAL(result.status, Status::ok);
                else if (error == ENOENT) CHECK_EQUAL(result.status, Status::not_found);
            }
        }
    }
}

TEST("an error of any call of a verification is that call's error, in its phase, and no descriptor is left open") {
    TestStore store;
    put(store, 2 * piece);
    store.run(verify(store));
    store.files.forget();
    CHECK(store.run(verify(store)).status == Status::ok);
    CHECK((store.files.calls == std::vector<std::string>{"open", "stat", "preadv", "preadv", "preadv", "close"}));
    const Phase phases[] = {Phase::open, Phase::stat, Phase::read, Phase::read, Phase::read};
    const size_t descriptors = TestStore::open_descriptors();
    for (const int error : {EACCES, ENOMEM, ENOTSUP}) {
        for (size_t at = 0; at < 5; at++) {
            store.files.forget();
            store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
                if (number == at) return -error;
                return std::nullopt;
            };
            const Result result = store.run(verify(store));
            CHECK(result.status == Status::io_error && result.error == error && result.phase == phases[at]);
            CHECK(TestStore::open_descriptors() == descriptors);
        }
    }
}

TEST("a verification that is abandoned, or hangs and is abandoned, makes no further call but close, and the watch word says where it hangs") {
    TestStore store;
    put(store, 2 * piece);
    store.run(verify(store));
    const size_t descriptors = TestStore::open_descriptors();
    for (size_t at = 0; at < 5; at++) {
        store.files.forget();
        const auto op = verify(store);
        std::mutex mutex;
        std::condition_variable changed;
        bool inside = false;
        bool released = false;
        store.files.before = [&](size_t number, const std::string&) {
            if (number != at) return;
            std::unique_lock<std::mutex> hold(mutex);
            inside = true;
            changed.notify_all();
            changed.wait(hold, [&] { return released; });
        };
        Result result;
        std::thread lane([&] { result = store.run(op); });
        {
            std::unique_lock<std::mutex> hold(mutex);
            changed.wait(hold, [&] { return inside; });
            CHECK(store.word.read().inside());
            CHECK(op->abandon() == State::running);
            released = true;
            changed.notify_all();
        }
        lane.join();
        CHECK(result.status == (at == 4 ? Status::ok : Status::expired));
        CHECK(store.files.calls.size() == at + 2 && store.files.calls.back() == "close");
        CHECK(TestStore::open_descriptors() == descriptors);
    }
}
