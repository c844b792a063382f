// recycling_store.h — a store that recycles, and what can be asked of it.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "../paths.h"
#include "block_fixture.h"
#include "test.h"

namespace kvlane {

inline constexpr uint64_t payload = 10'000;
inline constexpr uint64_t rest_us = 50'000;

struct RecyclingStore : TestStore {
    RecyclingStore() {
        mount->recycle.set_limits({.files = 8, .bytes = 1 << 20, .rest_us = rest_us});
        umask_before = umask(0);
    }
    ~RecyclingStore() { umask(umask_before); }

    void put(const std::string& hex, uint64_t seed, bool replace = false, uint64_t bytes = payload) {
        Memory memory(bytes);
        memory.fill_pattern(seed);
        CHECK_EQUAL(run(store(hex, memory, replace)).status, Status::ok);
    }
    // 0: it is not there; -1: anything but the bytes of `seed`, or of `other`.
    int holds(const std::string& hex, uint64_t seed, uint64_t other = 0, uint64_t bytes = payload) {
        Memory loaded(bytes), wanted(bytes), second(bytes);
        const Status status = run(load(hex, loaded)).status;
        if (status == Status::not_found) return 0;
        wanted.fill_pattern(seed);
        second.fill_pattern(other);
        if (status != Status::ok) return -1;
        return loaded.equals(wanted) ? 1 : other != 0 && loaded.equals(second) ? 2 : -1;
    }
    std::string recycled_path() const { return root + "/" + recycle_directory(); }
    std::vector<std::string> waiting() const {
        std::vector<std::string> names;
        if (!std::filesystem::exists(recycled_path())) return names;
        for (const auto& entry : std::filesystem::directory_iterator(recycled_path())) names.push_back(entry.path().string());
        return names;
    }
    // The store as another process has it: what it recycles is its own, and it does not know who loads what here.
    std::shared_ptr<Mount> seen_by_another() const {
        const auto other = std::make_shared<Mount>(root, 1);
        other->set_store_id(mount->store_id());
        other->recycle.set_limits(mount->recycle.limits());
        return other;
    }
    RecyclePool::Figures figures() const { return mount->recycle.figures(); }
    // What lies in recycle/ is what the pool knows, with no place reserved for nobody.
    bool in_order() const {
        const auto now = figures();
        return waiting().size() == now.files && (now.files > 0 || now.bytes == 0);
    }
    std::vector<std::string> temporaries() const {
        std::vector<std::string> found;
        for (const std::string& name : tree()) {
            if (name.find(".tmp") != std::string::npos) found.push_back(name);
        }
        return found;
    }
    mode_t umask_before;
};

}  // namespace kvlane
