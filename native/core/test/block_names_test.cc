// block_names_test.cc — look-ups, removes, and setting damaged files aside.
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

const std::string key = "c0ffee";

std::vector<int> found_of(const Operation& op) {
    std::vector<int> found;
    for (const auto& one : op.found) found.push_back(one.load());
    return found;
}

std::vector<std::string> aside_files(const TestStore& store) {
    std::vector<std::string> names;
    for (const std::string& name : store.tree()) {
        if (name.rfind("aside/", 0) == 0) names.push_back(name);
    }
    return names;
}

}  // namespace

TEST("a look-up says which blocks are there, and calls neither links, directories nor torn files present") {
    TestStore store;
    Memory memory(4096);
    store.run(store.store("aa01", memory));
    store.run(store.store("bb01", memory));
    TestStore::write_file(store.path("aa02"), "short");
    std::filesystem::create_directory(store.path("aa03"));
    std::filesystem::create_symlink(store.path("aa01"), store.path("aa04"));
    const auto op = store.lookup({"aa01", "bb01", "cc01", "aa02", "aa03", "aa04", "../aa01"});
    CHECK(store.run(op).status == Status::ok);
    CHECK((found_of(*op) == std::vector<int>{2, 2, 1, 1, 1, 1, 1}));
}

TEST("a look-up in a namespace that is not there finds nothing, and knows it") {
    TestStore store;
    const auto op = store.lookup({"aa01", "aa02"});
    CHECK(store.run(op).status == Status::ok);
    CHECK((found_of(*op) == std::vector<int>{1, 1}));
}

TEST("cached names are answered from the cache and are no evidence that the mount lives") {
    TestStore store;
    Memory memory(4096);
    store.run(store.store("aa01", memory));
    store.run(store.lookup({"aa01", "aa02"}));
    const auto again = store.lookup({"aa01", "aa02"});
    CHECK(store.run(again).status == Status::ok && !again->result.uncached);
    CHECK((found_of(*again) == std::vector<int>{2, 1}));
    // A kernel that cannot say leaves the question open.
    store.files.refuses_cached = true;
    const auto unsure = store.lookup({"aa01", "aa02"});
    CHECK(store.run(unsure).status == Status::ok && !unsure->result.uncached);
    CHECK((found_of(*unsure) == std::vector<int>{2, 1}));
}

TEST("what the cache does not know is asked of the mount") {
    TestStore store;
    Memory memory(4096);
    store.run(store.store("aa01", memory));
    store.files.forget();
    store.files.instead = [&](size_t number, const std::string& name) -> std::optional<int64_t> {
        if (name == "open_path" && number == 1) return -EAGAIN;  // 0 is the namespace's directory
        return std::nullopt;
    };
    const auto op = store.lookup({"aa01"});
    CHECK(store.run(op).status == Status::ok && op->result.uncached);
    CHECK((found_of(*op) == std::vector<int>{2}));
}

TEST("one bad name does not hide the others, and an abandoned look-up keeps what is proven") {
    TestStore store;
    Memory memory(4096);
    for (const char* hex : {"aa01", "aa02", "aa03"}) store.run(store.store(hex, memory));
    store.files.forget();
    store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
        if (number == 4) return -EACCES;  // 0 the directory; open, stat and close for the first name; then the second
        return std::nullopt;
    };
    const auto op = store.lookup({"aa01", "aa02", "aa03"});
    const Result& result = store.run(op);
    CHECK(result.status == Status::io_error && result.error == EACCES);
    CHECK((found_of(*op) == std::vector<int>{2, 0, 2}));

    store.files.forget();
    const auto abandoned = store.lookup({"aa01", "aa02", "aa03"});
    store.files.before = [&](size_t number, const std::string&) {
        if (number == 4) abandoned->abandon();
    };
    CHECK(store.run(abandoned).status == Status::expired);
    CHECK(abandoned->found[0].load() == 2 && abandoned->found[2].load() == 0);
    CHECK(store.files.calls.back() == "close");
}

TEST("a block is removed once, and its namespace may be missing") {
    TestStore store;
    Memory memory(4096);
    CHECK(store.run(store.remove(key)).status == Status::not_found);
    store.run(store.store(key, memory));
    const Result& removed = store.run(store.remove(key));
    CHECK(removed.status == Status::ok && removed.uncached);
    CHECK(store.run(store.remove(key)).status == Status::not_found);
    CHECK(store.run(store.load(key, memory)).status == Status::not_found);
}

TEST("an abandoned remove takes nothing away; once it has begun, it has begun") {
    TestStore store;
    Memory memory(4096);
    store.run(store.store(key, memory));
    for (size_t at = 0; at < 3; at++) {
        store.files.forget();
        const auto op = store.remove(key);
        State state = State::done;
        store.files.before = [&](size_t number, const std::string&) {
            if (number == at) state = op->abandon();
        };
        store.run(op);
        CHECK(std::filesystem::exists(store.path(key)) == (at == 0));
        CHECK(state == (at == 0 ? State::running : State::committing));
        if (at == 1) store.run(store.store(key, memory));
    }
}

TEST("a damaged file is set aside under a name that says where it came from, and the block can be stored again") {
    TestStore store;
    Memory memory(4096);
    memory.fill_pattern(1);
    TestStore::write_file(store.path(key), "\x89KVLANE\n and then nonsense");
    const Result& load = store.run(store.load(key, memory));
    CHECK(load.status == Status::corrupt && load.aside_inode == TestStore::inode(store.path(key)));
    const uint64_t inode = load.aside_inode;
    CHECK(store.run(store.aside(key, inode)).status == Status::ok);
    CHECK(!std::filesystem::exists(store.path(key)));
    const auto names = aside_files(store);
    CHECK(names.size() == 1 && names[0].rfind("aside/" + store.name_space + "." + key + "." + std::to_string(inode) + ".", 0) == 0);
    CHECK(store.run(store.store(key, memory)).status == Status::ok);
    CHECK(store.run(store.load(key, memory)).status == Status::ok);
}

TEST("nothing is set aside when the name holds another file, or none") {
    TestStore store;
    Memory memory(4096);
    CHECK(store.run(store.aside(key, 1)).status == Status::not_found);
    store.run(store.store(key, memory));
    CHECK(store.run(store.aside(key, TestStore::inode(store.path(key)) + 1)).status == Status::not_found);
    CHECK(std::filesystem::exists(store.path(key)));
    CHECK(aside_files(store).empty());
}

TEST("a good block with the inode number of the damaged one, which is gone, is not set aside") {
    // What ext4 does when the damaged file was replaced twice; here the bytes change in place, which kvlane never does.
    for (const size_t at_rename : {0U, 1U}) {
        TestStore store;
        Memory good(4096);
        good.fill_pattern(9);
        store.run(store.store(key, good));
        const std::string whole = TestStore::contents(store.path(key));
        TestStore::write_file(store.path(key), "\x89KVLANE\n and then nonsense");
        TestStore::set_modified(store.path(key), 1'000);
        const Result load = store.run(store.load(key, good));
        CHECK(load.status == Status::corrupt && load.aside_modified_ns == 1'000'000'000'000);
        const auto op = store.aside(key, load.aside_inode);
        op->modified_ns = load.aside_modified_ns;
        const auto heal = [&] {
            TestStore::write_file(store.path(key), whole);
            TestStore::set_modified(store.path(key), 2'000);
        };
        if (at_rename == 0) heal();
        size_t renames = 0;
        store.files.forget();
        store.files.before = [&](size_t, const std::string& name) {
            if (name == "rename" && renames++ == 0 && at_rename == 1) heal();
        };
        CHECK(store.run(op).status == Status::not_found);
        store.files.forget();
        CHECK(renames == 2 * at_rename);
        CHECK(TestStore::inode(store.path(key)) == load.aside_inode);
        CHECK(store.run(store.load(key, good)).status == Status::ok);
        CHECK(aside_files(store).empty());
    }
}

TEST("a good block that gets the name between the look and the rename is put back") {
    for (const bool taken_again : {false, true}) {
        TestStore store;
        Memory good(4096);
        good.fill_pattern(5);
        TestStore::write_file(store.path(key), "");
        const uint64_t inode = TestStore::inode(store.path(key));
        size_t renames = 0;
        WatchWord word;
        LaneContext other(posix_file_system(), word, store.clock);
        store.files.forget();
        store.files.before = [&](size_t, const std::string& name) {
            if (name != "rename") return;
            renames++;
            if (renames == 1) store.run(store.store(key, good, true), other);
            if (renames == 2 && taken_again) store.run(store.store(key, good, true), other);
        };
        CHECK(store.run(store.aside(key, inode)).status == Status::not_found);
        CHECK(renames == 2);
        store.files.forget();
        Memory loaded(4096);
        CHECK(store.run(store.load(key, loaded)).status == Status::ok && loaded.equals(good));
        CHECK(aside_files(store).size() == (taken_again ? 1 : 0));
        other.close_roots();
    }
}

TEST("every call of look-up, remove and aside may fail without leaving a descriptor open") {
    for (int kind = 0; kind < 3; kind++) {
        for (size_t at = 0; at < 16; at++) {
            TestStore store;
            Memory memory(4096);
            store.run(store.store(key, memory));
            const size_t descriptors = TestStore::open_descriptors();
            store.files.forget();
            store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
                if (number == at) return -EIO;
                return std::nullopt;
            };
            const auto op = kind == 0 ? store.lookup({key, "aa"}) : kind == 1 ? store.remove(key) : store.aside(key, TestStore::inode(store.path(key)));
            store.run(op);
            CHECK(TestStore::open_descriptors() == descriptors);
        }
    }
}
