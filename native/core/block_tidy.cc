// block_tidy.cc — unlinks what other writers left in recycle/ and nobody has touched for long.
//
// Whether a writer lives cannot be known: it may be on another host, or a corpse with a call that still
// writes. So nothing here is taken over, it is only unlinked. That is safe whoever lives: a late write goes
// to a file without a name, and a store that does not find its recycled file makes one.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <vector>

#include "block_steps.h"
#include "directory.h"
#include "paths.h"

namespace kvlane {
namespace {

constexpr int unlinks_max = 4096;  // by one operation: seconds at most, and the next start goes on
// Kept of a directory, whoever filled it: some MiB, and far beyond what a sidecar leaves (1,024 files).
constexpr size_t names_max = 16'384;

class TidyWork final : public Steps {
  public:
    using Steps::Steps;

    std::optional<Transfer> start(LaneContext& lane) override {
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        int all = lane.open(op_, root->fd, recycle_name, O_RDONLY | O_DIRECTORY);
        if (all == -ENOENT) return done(Phase::open);
        if (all < 0) return fail(all, Phase::open, "the directory recycle/");
        std::vector<std::string> writers;
        int result = names_in(lane, all, writers);
        for (const std::string& writer : writers) {
            if (result < 0) break;
            if (writer != writer_name()) result = tidy(lane, all, writer);
        }
        close(lane, all);
        if (result == -call_refused || result == -EIO) return fail(result, Phase::unlink);
        return end(Status::ok, 0, Phase::unlink, std::to_string(unlinked_));
    }

  private:
    int names_in(LaneContext& lane, int directory, std::vector<std::string>& names) {
        DirectoryReader reader(lane, op_, directory);
        DirectoryReader::Entry entry;
        while (names.size() < names_max) {
            const int got = reader.next(entry);
            if (got <= 0) return got;
            names.emplace_back(entry.name);
        }
        return 0;  // the others at another start; a directory that is not empty stays
    }

    int tidy(LaneContext& lane, int all, const std::string& writer) {
        int directory = lane.open(op_, all, writer.c_str(), O_RDONLY | O_DIRECTORY);
        if (directory < 0) return directory == -call_refused ? directory : 0;  // not a directory, or not for us
        std::vector<std::string> files;
        int result = names_in(lane, directory, files);
        bool empty = result == 0 && is_old(lane, all, writer);
        for (const std::string& file : files) {
            if (result < 0) break;
            const bool goes = unlinked_ < unlinks_max && is_old(lane, directory, file) && lane.unlink(op_, directory, file.c_str()) == 0;
            if (goes) unlinked_++;
            else empty = false;
            if (!lane.still_wanted(op_)) result = -call_refused;
        }
        close(lane, directory);
        if (result == 0 && empty) lane.remove_directory(op_, all, writer.c_str());
        return result;
    }

    // Its last change, of the name too, lies further back than a store can take.
    bool is_old(LaneContext& lane, int directory, const std::string& name) {
        const int fd = lane.open(op_, directory, name.c_str(), O_PATH);
        if (fd < 0) return false;
        FileStat found;
        const int stated = lane.stat(op_, fd, found);
        lane.close(op_, fd);
        return stated == 0 && found.changed_ns / 1000 + op_.older_us < unix_us();
    }

    int unlinked_ = 0;
};

}  // namespace

std::unique_ptr<BlockWork> make_tidy(std::shared_ptr<Operation> operation) { return std::make_unique<TidyWork>(std::move(operation)); }

}  // namespace kvlane
