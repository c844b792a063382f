// block_remove.cc — a block's name goes, or a leftover's; if so asked, only that very file's, and only while a lease lasts.
//
// unlink cannot ask what a name holds, so it is looked at just before: opened for reading, since on a network file system only
// that asks the server, and O_PATH does not. What another host does in between costs a block, never a wrong byte.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <cerrno>

#include "block_steps.h"
#include "lease.h"
#include "mount.h"
#include "paths.h"
#include "recycling.h"

namespace kvlane {
namespace {

class Removal : public Steps {
  public:
    using Steps::Steps;

  protected:
    // Is it the file that was seen, and a plain one? False: the result says why not.
    bool is_that_file(LaneContext& lane, int directory, const std::string& name) {
        int fd = lane.open(op_, directory, name.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
        if (fd == -ENOENT) return end(Status::not_found, fd, Phase::open), false;
        if (fd == -ELOOP || fd == -ENXIO) return another(), false;  // a link; a socket
        if (fd < 0) return fail(fd, Phase::open), false;
        FileStat found;
        const int stated = lane.stat(op_, fd, found);
        close(lane, fd);
        if (is_gone(stated)) return end(Status::not_found, stated, Phase::stat), false;
        if (stated < 0) return fail(stated, Phase::stat), false;
        const auto is = [](uint64_t wanted, uint64_t there) { return wanted == 0 || wanted == there; };
        if (!S_ISREG(found.mode) || !is(op_.inode, found.inode) || !is(op_.modified_ns, found.modified_ns) || !is(op_.changed_ns, found.changed_ns)) return another(), false;
        return true;
    }

    // The lease is still the highest. False: the result says why not.
    bool fence_holds(LaneContext& lane, int root) {
        if (op_.fence == 0) return true;
        Leases leases;
        const int read = read_leases(lane, op_, root, leases);
        if (read < 0) return fail(read, Phase::open, lease_trouble(read)), false;
        if (leases.highest() + 1 == op_.fence) return true;
        return end(Status::fenced, 0, Phase::stat, "lease " + std::to_string(leases.highest()) + " is the highest, and not " + std::to_string(op_.fence - 1)), false;
    }

    std::nullopt_t removed(int result) {
        if (result == -ENOENT) return end(Status::not_found, result, Phase::unlink);
        if (result < 0) return fail(result, Phase::unlink);
        op_.result.uncached = true;
        return done(Phase::unlink);
    }

  private:
    void another() {
        op_.result.kept = true;
        end(Status::ok, 0, Phase::stat, "the name holds another file now");
    }
};

class RemoveWork final : public Removal {
  public:
    using Removal::Removal;

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!plain_name_space(op_.name_space) || !plain_hex(op_.hex)) return fail(-EINVAL, Phase::queue, "not a block name");
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        Phase phase = Phase::open;
        int directory = open_directory(lane, op_, root->fd, block_directory(op_.name_space, op_.hex), false, 0, phase);
        if (directory == -ENOENT) return end(Status::not_found, directory, phase);
        if (directory < 0) return fail(directory, phase);
        remove(lane, root->fd, directory);
        close(lane, directory);
        return std::nullopt;
    }

  private:
    void remove(LaneContext& lane, int root, int directory) {
        const std::string name = block_file(op_.hex);
        if ((op_.inode != 0 || op_.modified_ns != 0) && !is_that_file(lane, directory, name)) return;
        Recycling recycling(op_);
        // Who names the file wants its room, unless told otherwise; and that of files which wait here does as well.
        const bool wants_room = op_.inode != 0 && !op_.recycles;
        const bool keeps = !wants_room && recycling.see(lane, root, directory, name.c_str());
        if (fence_holds(lane, root)) {
            if (!lane.still_wanted(op_) || !op_.begin_commit()) end(Status::expired, 0, Phase::open);
            else {
                if (wants_room) {
                    recycling.begin(lane, root);
                    recycling.make_room(lane);
                }
                removed(keeps ? move(lane, directory, name, recycling) : lane.unlink(op_, directory, name.c_str()));
            }
        }
        recycling.leave(lane);
    }

    // Into recycle/ in place of an unlink. Where that cannot be done, the unlink.
    int move(LaneContext& lane, int directory, const std::string& name, Recycling& recycling) {
        recycling.new_place();
        const std::string& place = recycling.place();
        const int moved = lane.rename(op_, directory, name.c_str(), recycling.directory(), place.c_str(), RENAME_NOREPLACE);
        if (moved == 0) {
            recycling.keep(lane, false);
            return 0;
        }
        if (moved == -call_refused) return moved;
        if (moved == -EINVAL || moved == -EXDEV) op_.mount->recycle.turn_off();
        if (moved != -EINVAL && moved != -ENOENT) lane.unlink_own(op_, recycling.directory(), place.c_str());  // an answer lost on the way
        return lane.unlink(op_, directory, name.c_str());
    }
};

class RemoveFileWork final : public Removal {
  public:
    using Removal::Removal;

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!leftover(op_.path)) return fail(-EINVAL, Phase::queue, "neither blocks/NS/ab/….tmp nor recycle/W/N nor aside/N: " + op_.path);
        if (own_leftover(op_.path)) return fail(-EBUSY, Phase::queue, "this process made it and may be at work on it: " + op_.path);
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        const size_t slash = op_.path.rfind('/');
        const std::string name = op_.path.substr(slash + 1);
        Phase phase = Phase::open;
        int directory = open_directory(lane, op_, root->fd, op_.path.substr(0, slash), false, 0, phase);
        if (directory == -ENOENT) return end(Status::not_found, directory, phase);
        if (directory < 0) return fail(directory, phase);
        if (is_that_file(lane, directory, name) && fence_holds(lane, root->fd)) {
            if (!lane.still_wanted(op_) || !op_.begin_commit()) end(Status::expired, 0, Phase::open);
            else removed(lane.unlink(op_, directory, name.c_str()));
        }
        close(lane, directory);
        return std::nullopt;
    }
};

}  // namespace

std::unique_ptr<BlockWork> make_remove(std::shared_ptr<Operation> operation) { return std::make_unique<RemoveWork>(std::move(operation)); }
std::unique_ptr<BlockWork> make_remove_file(std::shared_ptr<Operation> operation) { return std::make_unique<RemoveFileWork>(std::move(operation)); }

}  // namespace kvlane
