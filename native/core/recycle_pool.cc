// recycle_pool.cc — which files wait to be overwritten.
#include "recycle_pool.h"

#include <algorithm>

namespace kvlane {

void RecyclePool::set_limits(Limits limits) {
    std::lock_guard<std::mutex> hold(mutex_);
    limits_ = limits;
    on_.store(limits.files > 0 && limits.bytes > 0, std::memory_order_relaxed);
}

RecyclePool::Limits RecyclePool::limits() const {
    std::lock_guard<std::mutex> hold(mutex_);
    return limits_;
}

std::optional<Recyclable> RecyclePool::take(const Recyclable& wanted, uint64_t now_us) {
    std::lock_guard<std::mutex> hold(mutex_);
    const auto found = std::find_if(files_in_.begin(), files_in_.end(), [&](const Recyclable& one) {
        return one.like(wanted) && one.origin != wanted.origin && one.rested_us <= now_us;
    });
    if (found == files_in_.end()) return std::nullopt;
    const Recyclable taken = *found;
    files_in_.erase(found);
    files_ -= 1;
    bytes_ -= taken.file_bytes;
    return taken;
}

bool RecyclePool::any() const {
    std::lock_guard<std::mutex> hold(mutex_);
    return !files_in_.empty();
}

std::optional<Recyclable> RecyclePool::take_oldest() {
    std::lock_guard<std::mutex> hold(mutex_);
    if (files_in_.empty()) return std::nullopt;
    const Recyclable taken = files_in_.front();
    files_in_.pop_front();
    files_ -= 1;
    bytes_ -= taken.file_bytes;
    return taken;
}

RecyclePool::Room RecyclePool::reserve(const Recyclable& file) {
    std::lock_guard<std::mutex> hold(mutex_);
    Room room;
    if (!fits(file.file_bytes)) {
        const auto other = std::find_if(files_in_.begin(), files_in_.end(), [&](const Recyclable& one) { return !one.like(file); });
        if (other == files_in_.end()) return room;
        room.displaced = *other;
        files_in_.erase(other);
        files_ -= 1;
        bytes_ -= room.displaced->file_bytes;
        if (!fits(file.file_bytes)) return room;
    }
    files_ += 1;
    bytes_ += file.file_bytes;
    room.granted = true;
    return room;
}

void RecyclePool::put(const Recyclable& file) {
    std::lock_guard<std::mutex> hold(mutex_);
    files_in_.push_back(file);
    ++kept_;
}

void RecyclePool::give_back(uint64_t file_bytes) {
    std::lock_guard<std::mutex> hold(mutex_);
    files_ -= 1;
    bytes_ -= file_bytes;
}

void RecyclePool::put_back(const Recyclable& file) {
    std::lock_guard<std::mutex> hold(mutex_);
    files_in_.push_front(file);
    files_ += 1;
    bytes_ += file.file_bytes;
}

RecyclePool::Figures RecyclePool::figures() const {
    std::lock_guard<std::mutex> hold(mutex_);
    return {files_in_.size(), bytes_, recycled_, kept_, dropped_, lost_};
}

}  // namespace kvlane
