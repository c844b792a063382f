// store_identity.cc — kvlane.json, and small records that appear whole or not at all.
#include "store_identity.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <cerrno>

#include "json_text.h"
#include "paths.h"

namespace kvlane {

namespace {

// O_DIRECT where the file system takes it: a read through the page cache locks the page for as long as
// it is stuck, and every later read of the record, on some file systems every open, waits behind it.
// One lost answer would then keep all lanes from opening the root again after the mount came back.
int open_record(LaneContext& lane, Operation& operation, int directory, const char* name, bool& direct) {
    int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOATIME | O_DIRECT;
    for (;;) {
        const int fd = lane.open(operation, directory, name, flags);
        if (fd == -EPERM && (flags & O_NOATIME) != 0) flags &= ~O_NOATIME;  // somebody else's file
        else if (fd == -EINVAL && (flags & O_DIRECT) != 0) flags &= ~O_DIRECT;
        else {
            direct = (flags & O_DIRECT) != 0;
            return fd;
        }
    }
}

int64_t read_record(LaneContext& lane, Operation& operation, int fd, bool direct, std::string& out) {
    if (direct && out.size() <= page_bytes) {
        const int64_t result = lane.read(operation, Phase::read, fd, lane.header_page(), page_bytes, 0);
        if (result >= 0) out.assign(reinterpret_cast<const char*>(lane.header_page()), static_cast<size_t>(result));
        if (result != -EINVAL) return result;
    }
    if (direct) {
        const int dropped = lane.drop_direct(operation, fd);
        if (dropped < 0) return dropped;
    }
    return lane.read(operation, Phase::read, fd, out.data(), out.size(), 0);
}

}  // namespace

int64_t read_small_file(LaneContext& lane, Operation& operation, int directory, const char* name, std::string& out, Phase& phase, FileStat* about) {
    phase = Phase::open;
    bool direct = false;
    const int fd = open_record(lane, operation, directory, name, direct);
    if (fd < 0) return fd;
    FileStat found;
    phase = Phase::stat;
    int64_t result = lane.stat(operation, fd, found);
    if (about != nullptr) *about = found;
    if (result == 0 && (!S_ISREG(found.mode) || found.size > small_file_bytes_max)) result = -not_a_record;
    if (result == 0) {
        phase = Phase::read;
        out.resize(found.size);
        result = found.size == 0 ? 0 : read_record(lane, operation, fd, direct, out);
        if (result >= 0) out.resize(static_cast<size_t>(result));
    }
    lane.close(operation, fd);
    return result;
}

IdentityReading read_identity(LaneContext& lane, Operation& operation, int root) {
    IdentityReading reading;
    std::string text;
    const int64_t bytes = read_small_file(lane, operation, root, identity_name, text, reading.phase);
    if (bytes == -ENOENT) {
        reading.verdict = IdentityVerdict::absent;
        return reading;
    }
    if (bytes < 0 && bytes != -not_a_record && bytes != -ELOOP) {
        reading.error = static_cast<int>(bytes);
        return reading;
    }
    reading.verdict = IdentityVerdict::unreadable_text;
    const auto members = bytes < 0 ? std::nullopt : json_members(text);
    if (!members) return reading;
    const auto format = members->find("format");
    const auto store_id = members->find("store_id");
    if (format == members->end() || store_id == members->end() || json_number(format->second) != store_format) return reading;
    const std::optional<std::string> id = json_plain_string(store_id->second);
    if (!id || id->size() != 32 || !plain_hex(*id)) return reading;
    reading.verdict = IdentityVerdict::found;
    reading.store_id = *id;
    return reading;
}

namespace {

// Gives the temporary its name. Where a file system cannot rename without replacing, a hard link can.
int take_name(LaneContext& lane, Operation& operation, int directory, const char* temporary, const char* name, Publish how, Phase& phase) {
    phase = Phase::rename;
    if (!lane.still_wanted(operation) || !operation.begin_commit()) return -call_refused;
    if (how == Publish::replace) return lane.rename(operation, directory, temporary, directory, name, 0);
    const int renamed = lane.rename(operation, directory, temporary, directory, name, RENAME_NOREPLACE);
    if (renamed != -EINVAL && renamed != -ENOSYS) return renamed;
    const int linked = lane.link(operation, directory, temporary, directory, name);
    if (linked == 0) lane.unlink_own(operation, directory, temporary);
    return linked;
}

}  // namespace

int publish_small_file(LaneContext& lane, Operation& operation, int directory, const char* name, const std::string& text, Publish how,
                       uint32_t mode, Phase& phase, Force force) {
    const std::string temporary = temporary_name(name);
    phase = Phase::open;
    const int fd = lane.open(operation, directory, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY, mode);
    if (fd < 0) return fd;
    int64_t result = 0;
    for (size_t written = 0; written < text.size() && result >= 0; written += static_cast<size_t>(result)) {
        phase = Phase::write;
        result = lane.write(operation, Phase::write, fd, text.data() + written, text.size() - written, static_cast<int64_t>(written));
        if (result == 0) result = -EIO;
    }
    // Forced out before it gets its name: a record that a power cut turns back would let an old
    // generation's blocks pass for those of another model.
    if (result >= 0 && force == Force::out) {
        phase = Phase::fsync;
        result = lane.fsync(operation, fd);
    }
    const int closed = lane.close(operation, fd);
    if (result >= 0 && closed < 0) {
        phase = Phase::close;
        result = closed;
    }
    if (result >= 0) result = take_name(lane, operation, directory, temporary.c_str(), name, how, phase);
    if (result < 0) {
        lane.unlink_own(operation, directory, temporary.c_str());
        return static_cast<int>(result);
    }
    if (force == Force::out) force_out_names(lane, operation, directory);
    return 0;
}

void force_out_names(LaneContext& lane, Operation& operation, int directory) {
    const int readable = lane.open(operation, directory, ".", O_RDONLY | O_DIRECTORY);  // O_PATH cannot be forced out
    if (readable < 0) return;
    lane.fsync(operation, readable);
    lane.close(operation, readable);
}

}  // namespace kvlane
