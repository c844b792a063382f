// mount.h — a root directory and the store that is expected there.
//
// Nothing here touches the mount. Lanes read the root path, open it themselves, and compare what they
// find with the expected identity each time they open it afresh.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "recycle_pool.h"

namespace kvlane {

struct Mount {
    explicit Mount(std::string root_path, uint32_t mount_number = 0) : root(std::move(root_path)), number(mount_number) {}

    const std::string root;
    const uint32_t number;
    RecyclePool recycle;

    // Empty: not known yet; then only identify and probe may run.
    std::optional<std::string> store_id() const {
        std::lock_guard<std::mutex> hold(mutex_);
        return store_id_;
    }
    void set_store_id(std::optional<std::string> store_id) {
        std::lock_guard<std::mutex> hold(mutex_);
        if (store_id == store_id_) return;
        store_id_ = std::move(store_id);
        identity_.fetch_add(1, std::memory_order_release);
    }
    // Another number for another store id: what was verified under this one is right without a look at the id. Read it first.
    uint64_t identity() const { return identity_.load(std::memory_order_acquire); }

    // A number that no other probe of this mount has just now. Beyond `probe_places_max` at once, the last is shared.
    unsigned take_probe_place() {
        uint64_t taken = probe_places_.load(std::memory_order_relaxed);
        for (;;) {
            const auto place = static_cast<unsigned>(std::countr_one(taken));
            if (place >= probe_places_max) return probe_places_max;
            if (probe_places_.compare_exchange_weak(taken, taken | uint64_t{1} << place, std::memory_order_relaxed)) return place;
        }
    }
    void give_probe_place(unsigned place) {
        if (place < probe_places_max) probe_places_.fetch_and(~(uint64_t{1} << place), std::memory_order_relaxed);
    }

  private:
    // Two classes, each with all the stuck probes that it may hold (PROBES_HELD_MAX in sidecar/prober.ts). Two that share a directory
    // would be one: the second waits for the first, also when the mount has come back and only the first was lost.
    static constexpr unsigned probe_places_max = 63;
    std::atomic<uint64_t> probe_places_ = 0;
    mutable std::mutex mutex_;  // never held during a system call
    std::optional<std::string> store_id_;
    std::atomic<uint64_t> identity_{1};
};

}  // namespace kvlane
