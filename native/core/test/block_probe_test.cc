// block_probe_test.cc — a probe repeats what its class does, on a root opened afresh.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <set>

#include "../header.h"
#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

const LaneClass classes[] = {LaneClass::load, LaneClass::store, LaneClass::metadata};

}  // namespace

TEST("a probe of each class opens the root by path, moves bytes past the cache, and leaves nothing behind") {
    TestStore store;
    for (const LaneClass lane_class : classes) {
        store.run(store.operation(Kind::probe, lane_class));
        store.files.forget();
        const auto before = store.tree();
        const Result& result = store.run(store.operation(Kind::probe, lane_class));
        CHECK(result.status == Status::ok && result.uncached);
        CHECK(store.files.count("open_root") == 1);
        CHECK(store.files.count(lane_class == LaneClass::store ? "pwritev" : "preadv") >= 1);
        if (lane_class != LaneClass::load) CHECK(store.files.count("rename") == 1 && store.files.count("unlink") == 1 && store.files.count("create") == 1);
        CHECK(store.tree() == before);
    }
    const auto durable = store.operation(Kind::probe, LaneClass::store);
    durable->durable = true;
    store.files.forget();
    CHECK(store.run(durable).status == Status::ok && store.files.count("fsync") == 1);
}

TEST("a probe block that is missing is made, a damaged one is made again") {
    TestStore store;
    std::filesystem::remove_all(store.root + "/probe");
    CHECK(store.run(store.operation(Kind::probe)).status == Status::ok);
    TestStore::write_file(store.root + "/probe/block", "damaged");
    CHECK(store.run(store.operation(Kind::probe)).status == Status::corrupt);
    CHECK(store.run(store.operation(Kind::probe)).status == Status::ok);
    CHECK(store.leftovers().empty());
}

TEST("what stands in the place of the probe block and is no file is not read, and makes room for one") {
    TestStore store;
    const std::string block = store.root + "/probe/block";
    const std::string outside = store.root + ".outside";
    store.run(store.operation(Kind::probe));
    std::filesystem::copy_file(block, outside);  // a good one, were it followed
    const std::function<void()> kinds[] = {
        [&] { CHECK(mkfifo(block.c_str(), 0600) == 0); },
        [&] { std::filesystem::create_symlink(outside, block); },
        [&] {
            const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
            sockaddr_un address = {};
            address.sun_family = AF_UNIX;
            CHECK(block.size() < sizeof address.sun_path);
            block.copy(address.sun_path, sizeof address.sun_path - 1);
            CHECK(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
            close(fd);
        },
    };
    for (const auto& make : kinds) {
        std::filesystem::remove(block);
        make();
        store.files.forget();
        CHECK_EQUAL(store.run(store.operation(Kind::probe)).status, Status::corrupt);
        CHECK_EQUAL(store.files.count("preadv"), 1U);  // kvlane.json's
        CHECK_EQUAL(store.run(store.operation(Kind::probe)).status, Status::ok);
        CHECK(std::filesystem::is_regular_file(std::filesystem::symlink_status(block)));
    }
    CHECK(std::filesystem::file_size(outside) > 0);
    std::filesystem::remove(outside);
}

TEST("whoever may write to a store can keep its probes from succeeding: a file in the place of probe/ is left there") {
    TestStore store;
    std::filesystem::remove_all(store.root + "/probe");
    TestStore::write_file(store.root + "/probe", "somebody's");
    for (const LaneClass lane_class : classes) CHECK(store.run(store.operation(Kind::probe, lane_class)).status != Status::ok);
    CHECK_EQUAL(TestStore::contents(store.root + "/probe"), "somebody's");
}

TEST("each probe that may be stuck has a directory of its own, and gives it back") {
    Mount mount("/nowhere");
    std::set<unsigned> places;
    constexpr unsigned most = 63;  // all but one of two classes' PROBES_HELD_MAX
    for (unsigned i = 0; i < most; i++) places.insert(mount.take_probe_place());
    CHECK_EQUAL(places.size(), size_t{most});
    CHECK_EQUAL(mount.take_probe_place(), mount.take_probe_place());  // beyond, the last is shared
    mount.give_probe_place(40);
    CHECK_EQUAL(mount.take_probe_place(), 40U);
}

TEST("a store that may only be read has its kvlane.json read instead") {
    TestStore store;
    std::filesystem::remove_all(store.root + "/probe");
    store.files.instead = [](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "make_directory" || name == "create") return -EROFS;
        return std::nullopt;
    };
    CHECK(store.run(store.operation(Kind::probe, LaneClass::load)).status == Status::ok);
    CHECK(store.run(store.operation(Kind::probe, LaneClass::metadata)).status == Status::ok);
    CHECK(store.run(store.operation(Kind::probe, LaneClass::store)).error == EROFS);
}

TEST("a probe works where O_DIRECT is refused, and is then no evidence of uncached health") {
    TestStore store;
    store.files.refuses_direct_open = true;
    for (const LaneClass lane_class : classes) {
        const Result& result = store.run(store.operation(Kind::probe, lane_class));
        CHECK(result.status == Status::ok && !result.uncached);
    }
    CHECK(store.leftovers().empty());
}

TEST("a probe that is abandoned or fails at any call leaves no temporary and no descriptor") {
    for (const LaneClass lane_class : classes) {
        for (const bool abandon : {false, true}) {
            for (size_t at = 0; at < 24; at++) {
                TestStore store;
                store.run(store.operation(Kind::probe, lane_class));
                const size_t descriptors = TestStore::open_descriptors();
                store.files.forget();
                const auto op = store.operation(Kind::probe, lane_class);
                store.files.before = [&](size_t number, const std::string&) {
                    if (abandon && number == at) op->abandon();
                };
                store.files.instead = [&](size_t number, const std::string&) -> std::optional<int64_t> {
                    if (!abandon && number == at) return -EIO;
                    return std::nullopt;
                };
                store.run(op);
                CHECK(TestStore::open_descriptors() == descriptors);
                store.files.forget();
                CHECK(store.leftovers().empty());
            }
        }
    }
}
