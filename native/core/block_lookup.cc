// block_lookup.cc — which of many names exist; moving a damaged file aside.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <cerrno>

#include "block_steps.h"
#include "header.h"
#include "paths.h"

namespace kvlane {
namespace {

// Answers name by name into operation.found, so that a hang in the middle leaves what is proven.
class LookupWork final : public Steps {
  public:
    using Steps::Steps;

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!plain_name_space(op_.name_space)) return fail(-EINVAL, Phase::queue, "not a namespace");
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        const std::string path = std::string(blocks_name) + "/" + op_.name_space;
        int directory = -1;
        const int opened = open_anyhow(lane, root->fd, path, O_DIRECTORY, directory);
        if (opened == -ENOENT) {
            for (auto& found : op_.found) found.store(absent, std::memory_order_release);
            return done(Phase::open);
        }
        if (opened < 0) return fail(opened, Phase::open, "the directory of the namespace");

        int first_error = 0;
        Phase first_phase = Phase::open;
        for (size_t i = 0; i < op_.names.size() && first_error != -call_refused; i++) {
            Phase phase = Phase::open;
            const int answer = present(lane, directory, op_.names[i], phase);
            if (answer >= 0) {
                op_.found[i].store(static_cast<uint8_t>(answer), std::memory_order_release);
            } else if (first_error == 0 || answer == -call_refused) {
                first_error = answer;  // one bad name does not hide the others
                first_phase = phase;
            }
        }
        if (first_error == 0) done(Phase::stat);
        else fail(first_error, first_phase);
        close(lane, directory);
        return std::nullopt;
    }

  private:
    static constexpr uint8_t absent = 1;
    static constexpr uint8_t there = 2;

    // From the kernel's caches if they know, else by asking the mount; result 0 with `fd` set, or a negative errno.
    int open_anyhow(LaneContext& lane, int directory, const std::string& path, int extra_flags, int& fd) {
        int result = -EAGAIN;
        if (cache_answers_) {
            result = lane.open(op_, directory, path.c_str(), O_PATH | extra_flags, 0, FileSystem::Lookup::cached_only);
            if (result == -ENOSYS || result == -EINVAL || result == -EPERM) {  // before Linux 5.12, or a filter
                cache_answers_ = false;
                result = -EAGAIN;
            }
        }
        if (result == -EAGAIN) {
            result = lane.open(op_, directory, path.c_str(), O_PATH | extra_flags);
            if (result >= 0 || result == -ENOENT) op_.result.uncached = cache_answers_ || op_.result.uncached;
        }
        if (result < 0) return result;
        fd = result;
        return 0;
    }

    int present(LaneContext& lane, int directory, const std::string& hex, Phase& phase) {
        if (!plain_hex(hex)) return absent;
        int fd = -1;
        const int opened = open_anyhow(lane, directory, fan_out(hex) + "/" + block_file(hex), 0, fd);
        if (opened == -ENOENT || opened == -ELOOP || opened == -ENOTDIR) return absent;
        if (opened < 0) return opened;
        phase = Phase::stat;
        FileStat found;
        // The attributes came with the name; asking the mount again would add a second call that can stall.
        const int stated = lane.stat(op_, fd, found, FileSystem::Freshness::cached_is_fine);
        close(lane, fd);
        if (stated < 0) return stated;
        return S_ISREG(found.mode) && found.size >= header_bytes ? there : absent;
    }

    bool cache_answers_ = true;
};

// Only while the name still holds the file that was read: between the read and now another sidecar
// may have stored a good block there. Inode and time of last writing say which file it is: ext4 and others
// give the number of a replaced file to the next one. rename cannot ask for either, so what was moved is
// looked at again and put back if it was another.
class AsideWork final : public Steps {
  public:
    using Steps::Steps;

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!plain_name_space(op_.name_space) || !plain_hex(op_.hex)) return fail(-EINVAL, Phase::queue, "not a block name");
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        Phase phase = Phase::open;
        int directory = open_directory(lane, op_, root->fd, block_directory(op_.name_space, op_.hex), false, 0, phase);
        if (directory == -ENOENT) return end(Status::not_found, directory, phase);
        if (directory < 0) return fail(directory, phase);
        int aside = open_directory(lane, op_, root->fd, aside_name, true, directory_mode(op_.file_mode), phase);
        if (aside < 0) fail(aside, phase, "the directory aside/");
        else move(lane, directory, aside);
        close(lane, aside);
        close(lane, directory);
        return std::nullopt;
    }

  private:
    // `same`: it is the file that was read.
    int look(LaneContext& lane, int directory, const std::string& name, bool& same, Phase& phase) {
        phase = Phase::open;
        int fd = lane.open(op_, directory, name.c_str(), O_PATH);
        if (fd < 0) return fd;
        phase = Phase::stat;
        FileStat found;
        const int stated = lane.stat(op_, fd, found);
        close(lane, fd);
        same = found.inode == op_.inode && (op_.modified_ns == 0 || found.modified_ns == op_.modified_ns);
        return stated;
    }

    std::nullopt_t move(LaneContext& lane, int directory, int aside) {
        const std::string name = block_file(op_.hex);
        const std::string to = aside_file(op_.name_space, op_.hex, op_.inode);
        bool same = false;
        Phase phase = Phase::open;
        const int looked = look(lane, directory, name, same, phase);
        if (looked == -ENOENT || (looked == 0 && !same)) return end(Status::not_found, looked, phase, "the name holds another file now");
        if (looked < 0) return fail(looked, phase);
        if (!lane.still_wanted(op_) || !op_.begin_commit()) return end(Status::expired, 0, phase);
        int moved = lane.rename(op_, directory, name.c_str(), aside, to.c_str(), RENAME_NOREPLACE);
        if (moved == -EINVAL) moved = lane.rename(op_, directory, name.c_str(), aside, to.c_str(), 0);  // the target's name is unique
        if (moved == -ENOENT) return end(Status::not_found, moved, Phase::rename, "the name holds another file now");
        if (moved < 0) return fail(moved, Phase::rename);
        const int again = look(lane, aside, to, same, phase);
        if (again == 0 && same) return done(Phase::rename);
        // Another one came in between, or what was moved cannot be seen: back, unless the name is taken again.
        int back = lane.rename_back(op_, aside, to.c_str(), directory, name.c_str(), RENAME_NOREPLACE);
        if (back == -EINVAL) back = lane.link_back(op_, aside, to.c_str(), directory, name.c_str());
        if (again < 0) return fail(again, phase);
        return end(Status::not_found, 0, Phase::rename,
                   back == 0 ? "the name got another file meanwhile; it was put back" : "the name got another file meanwhile; it stays in aside/");
    }
};

}  // namespace

std::unique_ptr<BlockWork> make_lookup(std::shared_ptr<Operation> operation) { return std::make_unique<LookupWork>(std::move(operation)); }
std::unique_ptr<BlockWork> make_aside(std::shared_ptr<Operation> operation) { return std::make_unique<AsideWork>(std::move(operation)); }

}  // namespace kvlane
