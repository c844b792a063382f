// block_store_identity_test.cc — which store this is: made once, compared at every fresh root, never mistaken.
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <thread>

#include "../json_text.h"
#include "../paths.h"
#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

const std::string key = "c0ffee";

std::string member(const std::string& json, const char* name) {
    const auto members = json_members(json);
    return members && members->count(name) ? members->at(name) : "";
}

std::shared_ptr<Operation> identify(TestStore& store, bool create) {
    const auto op = store.operation(Kind::identify);
    op->create = create;
    return op;
}

// Two stores and one path that leads to either, as a mount point does.
struct Switch {
    TestStore store;
    TestStore other;
    std::string path = temporary_directory() + "/kv0";
    std::shared_ptr<Mount> mount = std::make_shared<Mount>(path);
    Switch() {
        mount->set_store_id(store.mount->store_id());
        lead_to(store.root);
        store.mount = mount;
    }
    ~Switch() { remove_tree(std::filesystem::path(path).parent_path().string()); }
    void lead_to(const std::string& where) {
        std::filesystem::remove(path);
        std::filesystem::create_symlink(where, path);
    }
};

}  // namespace

TEST("identify says what a store is, and makes one only when told to") {
    TestStore store(false);
    const Result missing = store.run(identify(store, false));
    CHECK(missing.status == Status::not_found && store.tree().empty());
    const Result made = store.run(identify(store, true));
    CHECK(made.status == Status::ok && member(made.text, "created") == "true");
    CHECK(member(made.text, "store_id").size() == 34 && member(made.text, "direct") == "true");
    CHECK(member(made.text, "device").find(':') != std::string::npos && !member(made.text, "fs_type").empty());
    const Result again = store.run(identify(store, true));
    CHECK(again.status == Status::ok && member(again.text, "created") == "false");
    CHECK(member(again.text, "store_id") == member(made.text, "store_id"));
    CHECK((store.tree() == std::vector<std::string>{"kvlane.json", "probe", "probe/block"}));
}

TEST("identify makes a missing root directory, but not a missing path to it") {
    TestStore store(false);
    store.mount = std::make_shared<Mount>(store.root + "/new");
    CHECK(store.run(identify(store, false)).status == Status::not_found);
    CHECK(store.run(identify(store, true)).status == Status::ok);
    store.mount = std::make_shared<Mount>(store.root + "/no/new");
    const Result& result = store.run(identify(store, true));
    CHECK(result.status != Status::ok && result.error == ENOENT);
}

TEST("what does not describe a store of our format is a wrong store, and stays as it is") {
    for (const char* text : {"", "{}", "[]", "{\"format\":2,\"store_id\":\"00112233445566778899aabbccddeeff\"}", "{\"format\":1,\"store_id\":\"short\"}",
                             "{\"format\":1,\"store_id\":\"00112233445566778899aabbccddeeff\"} trailing", "\xff\xfe"}) {
        TestStore store(false);
        TestStore::write_file(store.root + "/kvlane.json", text);
        CHECK(store.run(identify(store, true)).status == Status::wrong_store);
        CHECK(TestStore::contents(store.root + "/kvlane.json") == text);
    }
    TestStore store(false);
    CHECK(mkfifo((store.root + "/kvlane.json").c_str(), 0600) == 0);
    CHECK(store.run(identify(store, true)).status == Status::wrong_store);
}

TEST("of many that make the store at once exactly one does, and all name the same") {
    TestStore store(false);
    constexpr int writers = 4;
    std::vector<std::string> texts(writers);
    std::vector<std::thread> threads;
    for (int i = 0; i < writers; i++) {
        const auto op = identify(store, true);
        threads.emplace_back([&store, &texts, i, op] {
            WatchWord word;
            LaneContext lane(posix_file_system(), word, store.clock);
            texts[static_cast<size_t>(i)] = store.run(op, lane).text;
        });
    }
    for (std::thread& thread : threads) thread.join();
    int made = 0;
    for (const std::string& text : texts) {
        made += member(text, "created") == "true" ? 1 : 0;
        CHECK(member(text, "store_id") == member(texts[0], "store_id") && !text.empty());
    }
    CHECK(made == 1);
    CHECK(store.leftovers().empty());
}

TEST("where rename cannot refuse to replace, a hard link makes the store exclusively") {
    TestStore store(false);
    store.files.refuses_no_replace = true;
    CHECK(store.run(identify(store, true)).status == Status::ok);
    CHECK(store.files.count("link") >= 1 && store.leftovers().empty());
}

TEST("every call of making a store may fail and leaves no temporary and no half record") {
    for (size_t at = 0; at < 30; at++) {
        TestStore store(false);
        const size_t descriptors = TestStore::open_descriptors();
        store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
            if (number == at) return -EIO;
            return std::nullopt;
        };
        store.run(identify(store, true));
        CHECK(TestStore::open_descriptors() == descriptors);
        CHECK(store.leftovers().empty());
        store.files.forget();
        CHECK(store.run(identify(store, true)).status == Status::ok);
    }
}

TEST("a mount that was not identified yet takes no block, but a probe") {
    TestStore store;
    Memory memory(4096);
    store.mount = std::make_shared<Mount>(store.root);
    CHECK(store.run(store.store(key, memory)).status == Status::wrong_store);
    CHECK(store.files.calls.empty());
    CHECK(store.run(store.operation(Kind::probe)).status == Status::ok);
    CHECK(store.run(store.store(key, memory)).status == Status::wrong_store);
}

TEST("when the path leads to another store, or to none, nothing is read there and no byte is written") {
    for (const bool none : {false, true}) {
        Switch mounts;
        Memory memory(4096);
        const std::string bare = temporary_directory();
        mounts.lead_to(none ? bare : mounts.other.root);
        const auto before = mounts.other.tree();
        TestStore& store = mounts.store;
        for (const auto& op : {store.load(key, memory), store.store(key, memory), store.lookup({key}), store.remove(key), store.aside(key, 1),
                               store.operation(Kind::probe, LaneClass::load), store.operation(Kind::probe, LaneClass::store),
                               store.operation(Kind::probe, LaneClass::metadata), store.operation(Kind::name_space)}) {
            if (op->kind == Kind::name_space) op->name_space = "llama";
            const Result& result = store.run(op);
            CHECK(result.status == Status::wrong_store);
            CHECK(!result.text.empty());
        }
        CHECK(mounts.other.tree() == before);
        CHECK(std::filesystem::is_empty(bare));
        remove_tree(bare);
        store.lane->close_roots();
    }
}

TEST("a lane keeps its root until a larger generation, then compares again, and is back when the store is back") {
    Switch mounts;
    TestStore& store = mounts.store;
    Memory memory(4096);
    CHECK(store.run(store.store(key, memory)).status == Status::ok);
    mounts.lead_to(mounts.other.root);
    CHECK(store.run(store.load(key, memory)).status == Status::ok);  // through the descriptor it verified: still the right store
    store.generation++;
    CHECK(store.run(store.load(key, memory)).status == Status::wrong_store);
    CHECK(store.run(store.store("aa", memory)).status == Status::wrong_store);
    mounts.lead_to(store.root);
    CHECK(store.run(store.load(key, memory)).status == Status::ok);
    store.files.forget();
    CHECK(store.run(store.load(key, memory)).status == Status::ok);
    CHECK(store.files.count("open_root") == 0);
    store.lane->close_roots();
}

TEST("a lane keeps its root when its mount is told the same store, and compares again when it is told another or none") {
    TestStore store;
    Memory memory(4096);
    const auto id = store.mount->store_id();
    store.run(store.store(key, memory));
    store.mount->set_store_id(id);
    store.files.forget();
    CHECK(store.run(store.load(key, memory)).status == Status::ok);
    CHECK(store.files.count("open_root") == 0);
    store.mount->set_store_id(std::string(32, '0'));
    CHECK(store.run(store.load(key, memory)).status == Status::wrong_store);
    CHECK(store.files.count("open_root") == 1);
    store.mount->set_store_id(id);
    CHECK(store.run(store.load(key, memory)).status == Status::ok);
    store.mount->set_store_id(std::nullopt);
    CHECK(store.run(store.load(key, memory)).status == Status::wrong_store);
}

TEST("an error that accuses the mount makes the lane open the root again") {
    TestStore store;
    Memory memory(4096);
    store.run(store.store(key, memory));
    for (const int error : {ESTALE, ENOTCONN, ENODEV, EIO}) {
        store.files.forget();
        store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
            if (number == 0) return -error;
            return std::nullopt;
        };
        CHECK(store.run(store.load(key, memory)).error == error);
        store.files.forget();
        CHECK(store.run(store.load(key, memory)).status == Status::ok);
        CHECK(store.files.count("open_root") == 1);
    }
}

TEST("a root that cannot be opened says why") {
    TestStore store;
    Memory memory(4096);
    store.generation++;
    store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "open_root") return -ENOTCONN;
        return std::nullopt;
    };
    const Result& result = store.run(store.load(key, memory));
    CHECK(result.status == Status::io_error && result.error == ENOTCONN && result.phase == Phase::open);
    remove_tree(store.root);
    store.files.forget();
    CHECK(store.run(store.load(key, memory)).status == Status::wrong_store);
}
