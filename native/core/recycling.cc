// recycling.cc — files go in and out of recycle/<writer>/, each by one exclusive rename.
#include "recycling.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "block_steps.h"
#include "header.h"
#include "mount.h"
#include "paths.h"

namespace kvlane {
namespace {

// Files that turn out to be useless before one is made instead.
constexpr int takes_max = 2;
// Unlinked by one store on a full file system before it tries again; each may take a while.
constexpr int room_files_max = 8;

constexpr uint32_t permission_bits = 07777;

// A second name would see the overwriting, and another user's file stays his.
bool ours_alone(const FileStat& found) { return S_ISREG(found.mode) && found.links == 1 && found.owner == ::geteuid(); }

}  // namespace

uint64_t hash_of_key(const Operation& operation) {
    const std::string key = operation.name_space + "/" + operation.hex;
    return xxh3(key.data(), key.size());
}

LoadMark::LoadMark(const Operation& operation) {
    if (!operation.mount->recycle.on()) return;
    pool_ = &operation.mount->recycle;
    origin_ = hash_of_key(operation);
    pool_->load_begins(origin_);
}

LoadMark::~LoadMark() {
    if (pool_ != nullptr) pool_->load_ends(origin_);
}

Recycling::Recycling(Operation& operation)
    : op_(operation), pool_(operation.mount->recycle), origin_(hash_of_key(operation)), apart_(pool_.loading(origin_)) {}

Recycling::~Recycling() {
    if (seen_) pool_.give_back(seen_->file_bytes);
}

void Recycling::begin(LaneContext& lane, int root) {
    if (!pool_.any()) return;
    open(lane, root);
    if (directory_ >= 0 && !pool_.on() && !displaced_) displaced_ = pool_.take_oldest();
}

void Recycling::open(LaneContext& lane, int root) {
    if (directory_ >= 0) return;
    Phase phase = Phase::open;
    const int opened = open_directory(lane, op_, root, recycle_directory(), true, directory_mode(pool_.limits().file_mode), phase);
    directory_ = opened < 0 ? -1 : opened;
    // Another user made recycle/ for himself. Asked once, not for every block.
    if (opened == -EACCES || opened == -EPERM || opened == -EROFS) pool_.turn_off();
}

// Of files that are made in it. (A mount with `grpid` has another rule: there nothing fits, and files are made.)
std::optional<uint32_t> Recycling::group_in(LaneContext& lane, int directory) {
    FileStat found;
    if (lane.stat(op_, directory, found) < 0) return std::nullopt;
    return (found.mode & S_ISGID) != 0 ? found.group : ::getegid();
}

bool Recycling::makes_alike(LaneContext& lane, int target) {
    const auto here = group_in(lane, directory_);
    return here && here == group_in(lane, target);
}

void Recycling::go_to(uint64_t number) {
    number_ = number;
    place_ = std::to_string(number);
}

void Recycling::new_place() { go_to(pool_.next_number()); }

int Recycling::take(LaneContext& lane, int target, uint64_t file_bytes, bool& direct) {
    if (directory_ < 0 || !pool_.on() || apart_) return -ENOENT;
    const auto group = group_in(lane, target);
    if (!group) return -ENOENT;
    const Recyclable wanted{.file_bytes = file_bytes, .mode = op_.file_mode, .group = *group, .origin = origin_};
    for (int i = 0; i < takes_max; i++) {
        const auto file = pool_.take(wanted, lane.now_us());
        if (!file) return -ENOENT;
        go_to(file->number);
        constexpr int flags = O_WRONLY | O_NONBLOCK | O_NOCTTY;
        int fd = lane.open(op_, directory_, place_.c_str(), flags | (direct ? O_DIRECT : 0));
        if (fd == -EINVAL && direct) {
            direct = false;
            fd = lane.open(op_, directory_, place_.c_str(), flags);
        }
        FileStat found;
        const int stated = fd < 0 ? fd : lane.stat(op_, fd, found);
        const bool same = stated == 0 && found.inode == file->inode && found.size == file_bytes &&
                          (found.mode & permission_bits) == op_.file_mode && found.group == *group;
        if (same && ours_alone(found)) return fd;
        if (fd >= 0) lane.close(op_, fd);
        if (stated == -call_refused) {
            pool_.put_back(*file);  // as it was
            return stated;
        }
        pool_.count_lost();
        if (stated != -ENOENT) unlink(lane, file->number);
    }
    return -ENOENT;
}

bool Recycling::see(LaneContext& lane, int root, int directory, const char* name) {
    if (!pool_.on()) begin(lane, root);  // what still waits goes, one by one
    if (!pool_.on() || displaced_ || apart_) return false;
    const int fd = lane.open(op_, directory, name, O_PATH);
    if (fd < 0) return false;
    FileStat found;
    const int stated = lane.stat(op_, fd, found);
    lane.close(op_, fd);
    if (stated < 0 || !ours_alone(found) || found.size <= header_bytes || found.size % page_bytes != 0) return false;
    const Recyclable file{.file_bytes = found.size, .inode = found.inode, .mode = found.mode & permission_bits, .group = found.group, .origin = origin_};
    if (file.mode != pool_.limits().file_mode) return false;  // of no use to any store
    const RecyclePool::Room room = pool_.reserve(file);
    displaced_ = room.displaced;
    if (room.granted) seen_ = file;
    else pool_.count_dropped();
    if (room.granted || room.displaced) open(lane, root);
    if (directory_ >= 0) return seen();
    if (const auto unused = std::exchange(seen_, std::nullopt)) pool_.give_back(unused->file_bytes);
    if (const auto stays = std::exchange(displaced_, std::nullopt)) pool_.put_back(*stays);
    return false;
}

void Recycling::keep(LaneContext& lane, bool replaced) {
    if (!seen_) return;
    Recyclable file = *std::exchange(seen_, std::nullopt);
    file.number = number_;
    file.rested_us = replaced ? lane.now_us() + pool_.limits().rest_us : 0;
    pool_.put(file);
}

bool Recycling::make_room(LaneContext& lane) {
    if (directory_ < 0) return false;
    int unlinked = 0;
    for (; unlinked < room_files_max; unlinked++) {
        const auto file = pool_.take_oldest();
        if (!file) break;
        pool_.count_dropped();
        unlink(lane, file->number);
    }
    return unlinked > 0;
}

void Recycling::leave(LaneContext& lane) {
    if (const auto unused = std::exchange(seen_, std::nullopt)) pool_.give_back(unused->file_bytes);
    if (const auto gone = std::exchange(displaced_, std::nullopt)) {
        pool_.count_dropped();
        unlink(lane, gone->number);
    }
    if (directory_ >= 0) lane.close(op_, directory_);
    directory_ = -1;
}

void Recycling::unlink(LaneContext& lane, uint64_t number) { lane.unlink_own(op_, directory_, std::to_string(number).c_str()); }

}  // namespace kvlane
