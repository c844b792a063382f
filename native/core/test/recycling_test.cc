// recycling_test.cc — files that were blocks become blocks again; which ones, and how many are kept.
#include "recycling_store.h"

using namespace kvlane;

TEST("a removed block's file becomes the next block of its size") {
    RecyclingStore store;
    store.put("aa01", 1);
    const uint64_t inode = TestStore::inode(store.path("aa01"));
    CHECK(store.run(store.remove("aa01")).status == Status::ok);
    CHECK(store.holds("aa01", 1) == 0);
    CHECK(store.waiting().size() == 1 && store.figures().files == 1);
    store.files.forget();
    store.put("bb02", 2);
    CHECK(TestStore::inode(store.path("bb02")) == inode);
    CHECK(store.files.count("create") == 0 && store.files.count("unlink") == 0 && store.files.count("rename") == 1);
    CHECK(store.holds("bb02", 2) == 1 && store.holds("aa01", 1) == 0);
    CHECK(store.figures().recycled == 1 && store.in_order() && store.figures().files == 0);
    CHECK(store.run(store.remove("aa01")).status == Status::not_found);
}

TEST("a replaced block's file is had by exchanging the names, and rests before it is overwritten") {
    RecyclingStore store;
    store.put("aa01", 1);
    const uint64_t first = TestStore::inode(store.path("aa01"));
    store.put("aa01", 2, true);
    CHECK(store.holds("aa01", 2) == 1 && store.figures().files == 1 && store.in_order());
    store.put("bb02", 3);
    CHECK(TestStore::inode(store.path("bb02")) != first);
    store.clock.advance_us(rest_us);
    store.files.forget();
    store.put("bb02", 4, true);
    CHECK(TestStore::inode(store.path("bb02")) == first);
    CHECK(store.files.count("create") == 0 && store.files.count("unlink") == 0 && store.files.count("rename") == 1);
    CHECK(store.holds("bb02", 4) == 1 && store.holds("aa01", 2) == 1);
    CHECK(store.figures().files == 1 && store.in_order() && store.temporaries().empty());
}

TEST("a block's own file never becomes its next version") {
    RecyclingStore store;
    store.put("aa01", 1);
    const uint64_t first = TestStore::inode(store.path("aa01"));
    store.run(store.remove("aa01"));
    store.put("aa01", 2);
    CHECK(TestStore::inode(store.path("aa01")) != first);
    store.put("aa01", 3, true);
    CHECK(TestStore::inode(store.path("aa01")) != first);
    CHECK(store.holds("aa01", 3) == 1 && store.figures().recycled == 0);
}

TEST("another size, another mode, a second name: such files are not overwritten") {
    RecyclingStore store;
    store.put("aa01", 1);
    store.run(store.remove("aa01"));
    store.put("bb01", 2, false, payload + 4096);
    CHECK(store.figures().recycled == 0 && store.figures().files == 1);
    Memory memory(payload);
    const auto op = store.store("bb02", memory);
    op->file_mode = 0640;
    store.run(op);
    CHECK(store.figures().recycled == 0 && store.figures().files == 1);
    // Nor is a file of another mode than the store's kept: it would only take the room of others.
    CHECK(store.run(store.remove("bb02")).status == Status::ok);
    CHECK(store.figures().files == 1 && store.in_order());
    store.put("aa02", 3);
    const std::string backup = store.root + "/backup";
    CHECK(link(store.path("aa02").c_str(), backup.c_str()) == 0);
    const std::string before = TestStore::contents(backup);
    CHECK(store.run(store.remove("aa02")).status == Status::ok);
    CHECK(store.figures().files == 0 && store.figures().recycled == 1);  // aa02 took the one that waited, and was unlinked itself
    store.put("cc01", 4);
    CHECK(TestStore::contents(backup) == before);
    // A second name made while it waits.
    store.run(store.remove("cc01"));
    CHECK(link(store.waiting().at(0).c_str(), (store.root + "/late").c_str()) == 0);
    store.put("cc02", 5);
    CHECK(store.figures().lost == 1 && store.in_order());
    CHECK(TestStore::inode(store.path("cc02")) != TestStore::inode(store.root + "/late"));
}

TEST("a file of another group than a new one would have is not overwritten") {
    if (geteuid() != 0) return;  // only root gives files away
    RecyclingStore store;
    store.put("aa01", 1);
    store.run(store.remove("aa01"));
    // The directory hands its group on.
    const std::string directory = store.root + "/" + block_directory(store.name_space, "bb01");
    std::filesystem::create_directories(directory);
    CHECK(chown(directory.c_str(), static_cast<uid_t>(-1), 4242) == 0 && chmod(directory.c_str(), 02700) == 0);
    store.put("bb01", 2);
    CHECK(store.figures().recycled == 0 && store.figures().files == 1 && store.in_order());
    // Nor is a replaced file of that directory had by way of one that was made in recycle/.
    store.put("bb01", 3, true);
    struct stat found = {};
    CHECK(stat(store.path("bb01").c_str(), &found) == 0 && found.st_gid == 4242);
    CHECK(store.holds("bb01", 3) == 1 && store.figures().files == 1 && store.in_order());
    // Between two such directories it goes as usual.
    store.run(store.remove("bb01"));
    store.put("bb02", 4);
    CHECK(stat(store.path("bb02").c_str(), &found) == 0 && found.st_gid == 4242);
    CHECK(store.figures().recycled == 1 && store.holds("bb02", 4) == 1);
    // Changed while it waited.
    store.put("cc01", 5);  // over aa01's
    CHECK(store.figures().recycled == 2);
    store.run(store.remove("cc01"));
    CHECK(chown(store.waiting().at(0).c_str(), 4242, static_cast<gid_t>(-1)) == 0);
    store.put("cc02", 6);
    CHECK(store.figures().lost == 1 && store.in_order() && store.holds("cc02", 6) == 1);
}

TEST("two mounts that are one directory never use the same name") {
    RecyclingStore store;
    const auto second = store.seen_by_another();
    for (int i = 0; i < 4; i++) {
        const std::string one = "aa0" + std::to_string(i), two = "bb0" + std::to_string(i);
        store.put(one, 1);
        store.put(two, 2);
        CHECK(store.run(store.remove(one)).status == Status::ok);
        const auto other = store.remove(two);
        other->mount = second;
        CHECK(store.run(other).status == Status::ok);
    }
    CHECK(store.figures().lost == 0 && second->recycle.figures().lost == 0);
    CHECK_EQUAL(store.waiting().size(), store.figures().files + second->recycle.figures().files);
    CHECK_EQUAL(second->recycle.figures().files, uint64_t{4});
}

TEST("the pool has limits, and a size that nobody stores any more gives way") {
    RecyclingStore store;
    for (int i = 0; i < 10; i++) store.put("aa0" + std::to_string(i), 1);
    for (int i = 0; i < 10; i++) store.run(store.remove("aa0" + std::to_string(i)));
    CHECK(store.figures().files == 8 && store.figures().dropped == 2 && store.in_order());
    store.put("bb01", 2, false, 100'000);
    store.run(store.remove("bb01"));
    CHECK(store.figures().files == 8 && store.figures().dropped == 3 && store.in_order());
    store.put("bb02", 3, false, 100'000);
    CHECK(store.figures().recycled == 1);
    // One of another group gives way like one of another size.
    RecyclePool pool;
    pool.set_limits({.files = 1, .bytes = 1 << 20});
    const Recyclable of_another_group{.number = 1, .file_bytes = 8192, .group = 7}, wanted{.number = 2, .file_bytes = 8192, .group = 8};
    CHECK(pool.reserve(of_another_group).granted);
    pool.put(of_another_group);
    CHECK(!pool.take(wanted, 0));
    const auto room = pool.reserve(wanted);
    CHECK(room.granted && room.displaced && room.displaced->number == 1);
    store.mount->recycle.set_limits({.files = 8, .bytes = 110'000, .rest_us = 0});
    store.run(store.remove("bb02"));  // the others fill the bytes
    CHECK(store.figures().bytes <= 8 * 16'384 && store.in_order());
}

TEST("a key counts as loaded until its last load is over, and so does another key in the same place") {
    RecyclePool pool;
    pool.load_begins(5);
    pool.load_begins(5);
    CHECK(pool.loading(5) && pool.loading(5 + RecyclePool::loading_places));
    CHECK(!pool.loading(4) && !pool.loading(4 + RecyclePool::loading_places));
    pool.load_ends(5);
    CHECK(pool.loading(5));
    pool.load_ends(5);
    CHECK(!pool.loading(5) && !pool.loading(5 + RecyclePool::loading_places));
}
