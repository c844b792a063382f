// block_touch.cc — blocks that are in use get a new time of modification, so that whoever makes room sees it.
//
// One that was touched lately is left alone: a time that changes is a write to its inode, on a network file system a
// call to the server. A time from the future is as old as it is ahead, as whoever makes room takes it: use mends it.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "block_steps.h"
#include "paths.h"

namespace kvlane {
namespace {

class TouchWork final : public Steps {
  public:
    using Steps::Steps;

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!plain_name_space(op_.name_space)) return fail(-EINVAL, Phase::queue, "not a namespace");
        for (const std::string& hex : op_.names) {
            if (!plain_hex(hex)) return fail(-EINVAL, Phase::queue, "not a block name");
        }
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        Phase phase = Phase::open;
        int directory = open_directory(lane, op_, root->fd, std::string(blocks_name) + "/" + op_.name_space, false, 0, phase);
        if (directory == -ENOENT) absent_ = op_.names.size();
        else if (directory < 0) return fail(directory, phase, "the directory of the namespace");
        else for (const std::string& hex : op_.names) count(touch(lane, directory, fan_out(hex) + "/" + block_file(hex)));
        close(lane, directory);
        if (!lane.still_wanted(op_)) return fail(-call_refused, Phase::stat);
        return end(Status::ok, first_error_, Phase::stat,
                   "{\"touched\":" + std::to_string(touched_) + ",\"absent\":" + std::to_string(absent_) + ",\"fresh\":" + std::to_string(fresh_) +
                       ",\"failed\":" + std::to_string(failed_) + "}");
    }

  private:
    static constexpr int touched = 1;
    static constexpr int fresh = 0;

    static uint64_t apart(uint64_t one, uint64_t other) { return one < other ? other - one : one - other; }

    int touch(LaneContext& lane, int directory, const std::string& path) {
        // Not O_PATH: a network file system is asked how the file is now only when it is opened. A FIFO is not waited for.
        int fd = lane.open(op_, directory, path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
        if (fd < 0) return fd;
        FileStat found;
        int result = lane.stat(op_, fd, found);
        if (result == 0 && !S_ISREG(found.mode)) result = -ENOTSUP;
        if (result == 0 && apart(found.modified_ns / 1000, unix_us()) >= op_.older_us) {
            result = lane.touch(op_, fd);
            if (result == 0) result = touched;
        }
        close(lane, fd);
        return result;
    }

    void count(int result) {
        if (result == touched) touched_++;
        else if (result == fresh) fresh_++;
        else if (result == -ENOENT || result == -ENOTDIR || result == -ESTALE) absent_++;
        else if (result != -call_refused) {
            failed_++;
            if (first_error_ == 0) first_error_ = result;
        }
    }

    size_t touched_ = 0;
    size_t absent_ = 0;
    size_t fresh_ = 0;
    size_t failed_ = 0;
    int first_error_ = 0;
};

}  // namespace

std::unique_ptr<BlockWork> make_touch(std::shared_ptr<Operation> operation) { return std::make_unique<TouchWork>(std::move(operation)); }

}  // namespace kvlane
