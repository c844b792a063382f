// block_work.cc — which machine for which kind, and what all of them share.
#include "block_work.h"

#include <fcntl.h>

#include <cerrno>
#include <ctime>

#include "block_steps.h"
#include "header.h"
#include "paths.h"

namespace kvlane {

std::unique_ptr<BlockWork> make_block_work(std::shared_ptr<Operation> operation) {
    switch (operation->kind) {
        case Kind::load: return make_load(std::move(operation));
        case Kind::store: return make_store(std::move(operation));
        case Kind::lookup: return make_lookup(std::move(operation));
        case Kind::remove: return make_remove(std::move(operation));
        case Kind::aside: return make_aside(std::move(operation));
        case Kind::identify: return make_identify(std::move(operation));
        case Kind::name_space: return make_name_space(std::move(operation));
        case Kind::tidy: return make_tidy(std::move(operation));
        case Kind::probe: return make_probe(std::move(operation));
        case Kind::list: return make_list(std::move(operation));
        case Kind::verify: return make_verify(std::move(operation));
        case Kind::remove_file: return make_remove_file(std::move(operation));
        case Kind::touch: return make_touch(std::move(operation));
        case Kind::lease: return make_lease(std::move(operation));
    }
    __builtin_unreachable();
}

std::nullopt_t Steps::end(Status status, int64_t error, Phase phase, std::string text) {
    Result& result = op_.result;
    result.status = status;
    result.error = error < 0 && error > -call_refused ? static_cast<int>(-error) : 0;
    result.phase = phase;
    result.text = std::move(text);
    return std::nullopt;
}

std::nullopt_t Steps::fail(int64_t error, Phase phase, std::string text) {
    if (error == -call_refused) return end(Status::expired, error, phase);
    if (error == -ENOSPC || error == -EDQUOT) return end(Status::no_space, error, phase, std::move(text));
    return end(Status::io_error, error, phase, std::move(text));
}

void Steps::close(LaneContext& lane, int& fd) {
    if (fd >= 0) lane.close(op_, fd);
    fd = -1;
}

void block_parts(Transfer& transfer, void* header, std::byte* memory, uint64_t bytes, std::byte* tail) {
    const uint64_t whole = bytes & ~uint64_t{page_bytes - 1};
    transfer.offset = 0;
    transfer.part_count = 0;
    transfer.parts[transfer.part_count++] = {header, page_bytes};
    if (whole > 0) transfer.parts[transfer.part_count++] = {memory, whole};
    if (whole < bytes) transfer.parts[transfer.part_count++] = {tail, page_bytes};
}

void skip_done(Transfer& transfer, uint64_t bytes) {
    transfer.offset += static_cast<int64_t>(bytes);
    int kept = 0;
    for (int i = 0; i < transfer.part_count; i++) {
        iovec part = transfer.parts[i];
        const size_t skipped = bytes < part.iov_len ? static_cast<size_t>(bytes) : part.iov_len;
        bytes -= skipped;
        part.iov_base = static_cast<std::byte*>(part.iov_base) + skipped;
        part.iov_len -= skipped;
        if (part.iov_len > 0) transfer.parts[kept++] = part;
    }
    transfer.part_count = kept;
}

int open_block(LaneContext& lane, Operation& operation, Root& root, bool& direct) {
    const std::string path = block_path(operation.name_space, operation.hex);
    int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | (root.direct_refused ? 0 : O_DIRECT) | (root.noatime_refused ? 0 : O_NOATIME);
    for (;;) {
        const int fd = lane.open(operation, root.fd, path.c_str(), flags);
        if (fd == -EPERM && (flags & O_NOATIME) != 0) {
            flags &= ~O_NOATIME;  // a block that another user wrote
            root.noatime_refused = true;
        } else if (fd == -EINVAL && (flags & O_DIRECT) != 0) {
            flags &= ~O_DIRECT;  // the file system has none, or this is no regular file
        } else {
            direct = (flags & O_DIRECT) != 0;
            return fd;
        }
    }
}

bool takes_no_direct(const FileStat& found) {
    return found.direct_align != FileStat::unknown && (found.direct_align == 0 || found.direct_align > page_bytes);
}

uint32_t directory_mode(uint32_t file_mode) { return 0700U | (file_mode & 0666U) | ((file_mode & 0444U) >> 2); }

int open_directory(LaneContext& lane, Operation& operation, int root, const std::string& path, bool make, uint32_t mode, Phase& phase) {
    constexpr int flags = O_PATH | O_DIRECTORY;
    phase = Phase::open;
    const int there = lane.open(operation, root, path.c_str(), flags);
    if (there != -ENOENT || !make) return there;
    // Made level by level, each below a descriptor: mkdirat itself would follow a link in the middle of a path.
    int parent = root;
    for (size_t from = 0; from < path.size();) {
        const size_t slash = path.find('/', from);
        const std::string name = path.substr(from, slash == std::string::npos ? slash : slash - from);
        from = slash == std::string::npos ? path.size() : slash + 1;
        int next = lane.open(operation, parent, name.c_str(), flags);
        if (next == -ENOENT) {
            const int made = lane.make_directory(operation, parent, name.c_str(), mode);
            next = made == 0 || made == -EEXIST ? lane.open(operation, parent, name.c_str(), flags) : made;
        }
        if (parent != root) lane.close(operation, parent);
        if (next < 0) return next;
        parent = next;
    }
    return parent;
}

uint64_t unix_us() {
    timespec now = {};
    clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1'000;
}

}  // namespace kvlane
