// recycling_hostile_test.cc — recycle/ as somebody leaves it who wants other files unlinked.
#include <dirent.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "recycling_store.h"

namespace kvlane {
namespace {

TEST("tidying follows no link in recycle/, and unlinks nothing outside") {
    RecyclingStore store;
    store.put("aa01", 1);
    store.run(store.remove("aa01"));
    const std::string outside = store.root + ".outside";
    TestStore::write_file(outside + "/1", "precious");
    const std::string others = store.root + "/recycle/0123456789abcdef";
    TestStore::write_file(others + "/1", "left");
    std::filesystem::create_directory_symlink(outside, store.root + "/recycle/fedcba9876543210");
    std::filesystem::create_directory_symlink(outside, others + "/2");
    std::filesystem::create_symlink(outside + "/1", others + "/3");
    std::filesystem::create_hard_link(outside + "/1", others + "/4");
    TestStore::write_file(others + "/deep/5", "a directory of somebody's");
    const auto op = store.operation(Kind::tidy, LaneClass::metadata);
    op->older_us = 0;
    const Result tidied = store.run(op);
    CHECK_EQUAL(tidied.status, Status::ok);
    CHECK_EQUAL(tidied.text, "2");  // the file, and the second name: the first one keeps its bytes
    CHECK_EQUAL(TestStore::contents(outside + "/1"), "precious");
    CHECK(std::filesystem::is_symlink(store.root + "/recycle/fedcba9876543210"));
    CHECK(std::filesystem::is_symlink(others + "/2") && std::filesystem::is_symlink(others + "/3"));
    CHECK_EQUAL(TestStore::contents(others + "/deep/5"), "a directory of somebody's");
    CHECK(store.in_order() && store.figures().files == 1);

    // recycle/ itself a link: nothing is tidied, and nothing taken.
    std::filesystem::rename(store.root + "/recycle", store.root + "/recycle.held");
    std::filesystem::create_directory_symlink(outside, store.root + "/recycle");
    const auto again = store.operation(Kind::tidy, LaneClass::metadata);
    again->older_us = 0;
    CHECK(store.run(again).status != Status::ok);
    CHECK_EQUAL(TestStore::contents(outside + "/1"), "precious");
    std::filesystem::remove(store.root + "/recycle");
    std::filesystem::rename(store.root + "/recycle.held", store.root + "/recycle");
    std::filesystem::remove_all(outside);
}

TEST("tidying keeps no more names than it can use, however many somebody has put into recycle/") {
    RecyclingStore store;
    store.put("aa01", 1);
    store.run(store.remove("aa01"));
    size_t asked = 0;
    store.files.instead = [&](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name != "entries") return std::nullopt;
        if (++asked > 100'000) return 0;
        dirent64 entry = {};
        entry.d_reclen = sizeof entry;
        const std::string long_name = std::string(200, 'f') + std::to_string(asked);
        long_name.copy(entry.d_name, sizeof entry.d_name - 1);
        std::memcpy(store.lane->tail_page(), &entry, sizeof entry);
        return sizeof entry;
    };
    const auto op = store.operation(Kind::tidy, LaneClass::metadata);
    op->older_us = 0;
    CHECK_EQUAL(store.run(op).status, Status::ok);
    CHECK(asked > 1'000 && asked < 20'000);
    store.files.forget();
}

}  // namespace
}  // namespace kvlane
