// mount.h — a root directory and the store that is expected there.
//
// Nothing here touches the mount. Lanes read the root path, open it themselves, and compare what they
// find with the expected identity each time they open it afresh.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

namespace kvlane {

struct Mount {
    explicit Mount(std::string root_path, uint32_t mount_number = 0) : root(std::move(root_path)), number(mount_number) {}

    const std::string root;
    const uint32_t number;

    // Empty: not known yet; then only identify and probe may run.
    std::optional<std::string> store_id() const {
        std::lock_guard<std::mutex> hold(mutex_);
        return store_id_;
    }
    void set_store_id(std::optional<std::string> store_id) {
        std::lock_guard<std::mutex> hold(mutex_);
        store_id_ = std::move(store_id);
    }

  private:
    mutable std::mutex mutex_;  // never held during a system call
    std::optional<std::string> store_id_;
};

}  // namespace kvlane
