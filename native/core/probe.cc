// probe.cc — does the mount answer again? Each class repeats every kind of call that it makes.
//
// The root is opened by path afresh, because the breaker may have opened when the mount went away.
// What could be answered from a cache proves nothing: attributes are asked of the mount itself, and
// each probe moves one page with O_DIRECT, also that of the metadata class, since ext4 and xfs answer
// directory changes from memory while the device below them is stuck.
//
// Probes that change names do it in directories of their own, probe/0, probe/1 and so on: a stuck
// create or rename holds the kernel's lock of its directory, and a probe that joins it there would
// only wait for it.
#include "probe.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "block_steps.h"
#include "header.h"
#include "mount.h"
#include "paths.h"

namespace kvlane {
namespace {

constexpr size_t probe_file_bytes = header_bytes + probe_payload_bytes;

// A store that this process may only read.
bool read_only(int result) { return result == -EROFS || result == -EACCES || result == -EPERM; }

class ProbeWork final : public Steps {
  public:
    using Steps::Steps;
    ~ProbeWork() override {
        if (place_) op_.mount->give_probe_place(*place_);
    }

    std::optional<Transfer> start(LaneContext& lane) override {
        Root* root = nullptr;
        if (lane.open_root(op_, root, true) != Status::ok) return std::nullopt;
        FileStat stat;
        const int stated = lane.stat(op_, root->fd, stat, FileSystem::Freshness::forced);
        if (stated < 0) return fail(stated, Phase::stat);
        if (op_.lane_class == LaneClass::load) return open_block(lane, *root);

        Phase phase = Phase::open;
        place_ = op_.mount->take_probe_place();
        const std::string place = std::string(probe_name) + "/" + std::to_string(*place_);
        directory_ = open_directory(lane, op_, root->fd, place, true, directory_mode(op_.file_mode), phase);
        if (directory_ < 0 && !(op_.lane_class == LaneClass::metadata && read_only(directory_))) {
            const int error = std::exchange(directory_, -1);
            return fail(error, phase, "the directory " + place);
        }
        if (op_.lane_class == LaneClass::metadata) {
            if (directory_ >= 0 && !change_names(lane)) return std::nullopt;
            return open_block(lane, lane.root_of(op_));
        }
        return open_temporary(lane);
    }

    std::optional<Transfer> resume(LaneContext& lane, int64_t moved) override {
        if (moved < 0) lane.suspect_root(op_, moved);
        switch (step_) {
            case Step::read: return has_read(lane, moved);
            case Step::write: return has_written(lane, moved);
            case Step::sync:
                if (moved < 0) return leave(lane, fail(moved, Phase::fsync));
                return publish(lane);
        }
        return std::nullopt;
    }

  private:
    enum class Step : uint8_t { read, write, sync };

    std::nullopt_t leave(LaneContext& lane, std::nullopt_t ended) {
        close(lane, file_);
        if (!temporary_.empty()) lane.unlink_own(op_, directory_, temporary_.c_str());
        temporary_.clear();
        if (published_) lane.unlink_own(op_, directory_, writer_name().c_str());
        published_ = false;
        close(lane, directory_);
        return ended;
    }

    // A store that may only be read has no probe block and can get none; its kvlane.json serves as well.
    std::optional<Transfer> open_block(LaneContext& lane, Root& root) {
        const std::string path = std::string(probe_name) + "/" + probe_block_name;
        int opened = open_for_reading(lane, root, path.c_str());
        if (opened == -ENOENT) {
            const int made = make_probe_block(lane, op_, root.fd);
            if (read_only(made)) {
                opened = open_for_reading(lane, root, identity_name);
                plain_ = true;
            } else if (made < 0) {
                return leave(lane, fail(made, Phase::open, "the probe block cannot be made"));
            } else {
                opened = open_for_reading(lane, root, path.c_str());
            }
        }
        if (opened == -ELOOP || opened == -ENXIO) return leave(lane, not_a_file(lane));  // a symbolic link, a socket
        if (opened < 0) return leave(lane, fail(opened, Phase::open));
        file_ = opened;
        FileStat stat;
        const int stated = lane.stat(op_, file_, stat, FileSystem::Freshness::forced);
        if (stated < 0) return leave(lane, fail(stated, Phase::stat));
        if (!S_ISREG(stat.mode)) return leave(lane, not_a_file(lane));
        step_ = Step::read;
        Transfer transfer;
        transfer.what = Transfer::What::read;
        transfer.fd = file_;
        block_parts(transfer, lane.header_page(), lane.tail_page(), plain_ ? 0 : probe_payload_bytes, nullptr);
        return transfer;
    }

    int open_for_reading(LaneContext& lane, Root& root, const char* path) {
        int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOATIME | O_DIRECT;
        for (;;) {
            const int fd = lane.open(op_, root.fd, path, flags);
            if (fd == -EPERM && (flags & O_NOATIME) != 0) flags &= ~O_NOATIME;
            else if (fd == -EINVAL && (flags & O_DIRECT) != 0) flags &= ~O_DIRECT;
            else {
                direct_ = (flags & O_DIRECT) != 0;
                return fd;
            }
        }
    }

    std::optional<Transfer> has_read(LaneContext& lane, int64_t moved) {
        if (moved == -EINVAL && direct_ && lane.drop_direct(op_, file_) >= 0) {
            direct_ = false;
            Transfer transfer;
            transfer.what = Transfer::What::read;
            transfer.fd = file_;
            block_parts(transfer, lane.header_page(), lane.tail_page(), plain_ ? 0 : probe_payload_bytes, nullptr);
            return transfer;
        }
        if (moved < 0) return leave(lane, fail(moved, Phase::read));
        if (direct_) op_.result.uncached = true;
        if (!plain_) {
            const auto& page = *reinterpret_cast<const HeaderPage*>(lane.header_page());
            const bool whole = moved == static_cast<int64_t>(probe_file_bytes) && judge_header(page, header_bytes) == HeaderVerdict::valid &&
                               page.payload_bytes == probe_payload_bytes && xxh3(lane.tail_page(), probe_payload_bytes) == page.payload_xxh3;
            // A damaged probe block is replaced by the next probe; this one has no good answer.
            if (!whole) {
                forget_block(lane);
                return leave(lane, end(Status::corrupt, 0, Phase::read, "the probe block is damaged"));
            }
        }
        return leave(lane, done(Phase::close));
    }

    // A FIFO, a device: not read, because that may do anything. The next probe makes a block.
    std::nullopt_t not_a_file(LaneContext& lane) {
        forget_block(lane);
        return end(Status::corrupt, 0, Phase::stat, "the probe block is no file");
    }

    void forget_block(LaneContext& lane) {
        const std::string path = std::string(probe_name);
        Phase phase = Phase::open;
        int directory = open_directory(lane, op_, lane.root_of(op_).fd, path, false, 0, phase);
        if (directory < 0) return;
        lane.unlink(op_, directory, probe_block_name);
        close(lane, directory);
    }

    std::string temporary() { return temporary_name("probe"); }

    std::optional<Transfer> open_temporary(LaneContext& lane) {
        direct_ = !lane.root_of(op_).direct_refused;
        for (;;) {
            temporary_ = temporary();
            const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY | (direct_ ? O_DIRECT : 0);
            file_ = lane.open(op_, directory_, temporary_.c_str(), flags, op_.file_mode);
            if (file_ != -EINVAL || !direct_) break;
            lane.unlink_own(op_, directory_, temporary_.c_str());  // Linux makes the file before it refuses O_DIRECT
            direct_ = false;
        }
        if (file_ < 0) {
            const int error = file_;
            file_ = -1;
            if (error == -call_refused) temporary_.clear();
            return leave(lane, fail(error, Phase::open));
        }
        std::memset(lane.tail_page(), 0x5a, probe_payload_bytes);
        fill_header(lane);
        step_ = Step::write;
        return write_whole(lane);
    }

    void fill_header(LaneContext& lane) {
        write_header(*reinterpret_cast<HeaderPage*>(lane.header_page()),
                     {probe_name, "00", probe_payload_bytes, xxh3(lane.tail_page(), probe_payload_bytes), unix_us(), writer_name()});
    }

    Transfer write_whole(LaneContext& lane) {
        Transfer transfer;
        transfer.what = Transfer::What::write;
        transfer.fd = file_;
        block_parts(transfer, lane.header_page(), lane.tail_page(), probe_payload_bytes, nullptr);
        return transfer;
    }

    std::optional<Transfer> has_written(LaneContext& lane, int64_t moved) {
        if (moved == -EINVAL && direct_ && lane.drop_direct(op_, file_) >= 0) {
            direct_ = false;
            return write_whole(lane);
        }
        if (moved < 0) return leave(lane, fail(moved, Phase::write));
        if (moved != static_cast<int64_t>(probe_file_bytes)) return leave(lane, fail(-EIO, Phase::write, "the probe was written in part only"));
        if (direct_) op_.result.uncached = true;
        if (!op_.durable) return publish(lane);
        step_ = Step::sync;
        Transfer transfer;
        transfer.what = Transfer::What::fsync;
        transfer.fd = file_;
        return transfer;
    }

    std::optional<Transfer> publish(LaneContext& lane) {
        const int closed = lane.close(op_, file_);
        file_ = -1;
        if (closed < 0) return leave(lane, fail(closed, Phase::close));
        if (!rename_and_remove(lane)) return std::nullopt;
        return leave(lane, done(Phase::unlink));
    }

    // The temporary over probe/<writer>, then away with it. False: the operation has ended.
    bool rename_and_remove(LaneContext& lane) {
        const std::string name = writer_name();
        const int renamed = lane.rename(op_, directory_, temporary_.c_str(), directory_, name.c_str(), 0);
        if (renamed < 0) {
            leave(lane, fail(renamed, Phase::rename));
            return false;
        }
        temporary_.clear();
        published_ = true;
        // A second probe of this process may have taken the name away already.
        const int removed = lane.unlink(op_, directory_, name.c_str());
        if (removed < 0 && removed != -ENOENT) {
            leave(lane, fail(removed, Phase::unlink));
            return false;
        }
        published_ = false;
        return true;
    }

    bool change_names(LaneContext& lane) {
        temporary_ = temporary();
        file_ = lane.open(op_, directory_, temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY, op_.file_mode);
        if (read_only(file_)) {  // look-ups are all there is
            file_ = -1;
            temporary_.clear();
            return true;
        }
        if (file_ < 0) {
            const int error = file_;
            file_ = -1;
            if (error == -call_refused) temporary_.clear();
            leave(lane, fail(error, Phase::open));
            return false;
        }
        FileStat stat;
        const int stated = lane.stat(op_, file_, stat, FileSystem::Freshness::forced);
        if (stated < 0) {
            leave(lane, fail(stated, Phase::stat));
            return false;
        }
        close(lane, file_);
        return rename_and_remove(lane);
    }

    Step step_ = Step::read;
    std::optional<unsigned> place_;
    int directory_ = -1;
    int file_ = -1;
    bool direct_ = false;
    bool plain_ = false;  // kvlane.json instead of the probe block
    bool published_ = false;  // probe/<writer> is there and is ours to take away
    std::string temporary_;
};

}  // namespace

int make_probe_block(LaneContext& lane, Operation& operation, int root) {
    Phase phase = Phase::open;
    const int directory = open_directory(lane, operation, root, probe_name, true, directory_mode(operation.file_mode), phase);
    if (directory < 0) return directory;
    std::memset(lane.tail_page(), 0xa5, probe_payload_bytes);
    write_header(*reinterpret_cast<HeaderPage*>(lane.header_page()),
                 {probe_name, "00", probe_payload_bytes, xxh3(lane.tail_page(), probe_payload_bytes), unix_us(), writer_name()});
    const std::string temporary = temporary_name(probe_block_name);
    const int fd = lane.open(operation, directory, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY, operation.file_mode);
    int64_t result = fd;
    if (fd >= 0) {
        result = lane.write(operation, Phase::write, fd, lane.header_page(), probe_file_bytes, 0);  // the two pages are neighbours
        if (result >= 0 && result != static_cast<int64_t>(probe_file_bytes)) result = -EIO;
        const int closed = lane.close(operation, fd);
        if (result >= 0) result = closed;
        if (result >= 0) result = lane.rename(operation, directory, temporary.c_str(), directory, probe_block_name, 0);
        if (result < 0) lane.unlink_own(operation, directory, temporary.c_str());
    }
    lane.close(operation, directory);
    return static_cast<int>(result < 0 ? result : 0);
}

std::unique_ptr<BlockWork> make_probe(std::shared_ptr<Operation> operation) { return std::make_unique<ProbeWork>(std::move(operation)); }

}  // namespace kvlane
