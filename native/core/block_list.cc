// block_list.cc — what lies in one directory of the store: names, sizes and times, never what a link leads to.
//
// The answer is lines, since a directory has thousands of entries: first the cookie to go on with, "-" at the end; then
// "<type> <allocated> <size> <modified_ns> <changed_ns> <inode> <name>" for each. Other programs may have put any name
// there; one that could be taken for two lines, or that is no text, comes escaped and with the type "?".
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "block_steps.h"
#include "directory.h"
#include "paths.h"
#include "plain_text.h"

namespace kvlane {
namespace {

constexpr uint32_t list_entries_max = 4096;  // a call: half a megabyte of text, and 4,096 calls in a row that the next one waits for

class ListWork final : public Steps {
  public:
    using Steps::Steps;

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!listable(op_.path)) return fail(-EINVAL, Phase::queue, "not a directory of a store: " + op_.path);
        if (op_.entries_max == 0 || op_.entries_max > list_entries_max) {
            return fail(-EINVAL, Phase::queue, "entries must be from 1 to " + std::to_string(list_entries_max));
        }
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        // For reading, which on a network file system asks the server whether the directory is still as it was.
        int directory = lane.open(op_, root->fd, op_.path.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK);
        if (directory == -ENOENT || directory == -ENOTDIR) return end(Status::not_found, directory, Phase::open, "there is no directory " + op_.path);
        if (directory < 0) return fail(directory, Phase::open, "the directory " + op_.path);
        int64_t result = op_.number == 0 ? 0 : lane.seek(op_, directory, op_.number);
        if (result == 0) result = list(lane, directory);
        if (result < 0) fail(result, phase_, "the directory " + op_.path);
        close(lane, directory);
        return std::nullopt;
    }

  private:
    int64_t list(LaneContext& lane, int directory) {
        DirectoryReader reader(lane, op_, directory);
        DirectoryReader::Entry entry;
        std::string lines;
        std::string next = "-";
        for (uint32_t i = 0;; i++) {
            phase_ = Phase::open;
            const int got = reader.next(entry);
            if (got < 0) return got;
            if (got == 0) break;
            const int told = tell(lane, directory, entry, lines);
            if (told < 0) return told;
            if (i + 1 < op_.entries_max) continue;
            next = std::to_string(entry.next);
            break;
        }
        end(Status::ok, 0, Phase::stat, next + "\n" + lines);
        return 0;
    }

    int tell(LaneContext& lane, int directory, const DirectoryReader::Entry& entry, std::string& lines) {
        phase_ = Phase::stat;
        const std::string name(entry.name);
        FileStat found;
        const int stated = lane.stat_name(op_, directory, name.c_str(), found);
        if (stated == -ENOENT || stated == -ESTALE) return 0;  // gone since
        // One that is damaged, or closed to us, does not hide the others: told with its number and nothing else.
        const bool shut = stated == -EIO || stated == -EUCLEAN || stated == -EBADMSG || stated == -EACCES || stated == -EPERM;
        if (stated < 0 && !shut) return stated;
        if (shut) found.inode = entry.inode;
        const bool plain = one_line_of_text(name);
        lines += plain ? type_of(found.mode) : '?';
        for (const uint64_t number : {found.allocated_bytes, found.size, found.modified_ns, found.changed_ns, found.inode}) {
            lines += ' ';
            lines += std::to_string(number);
        }
        lines += ' ';
        lines += plain ? name : percent_escaped(name);
        lines += '\n';
        return 0;
    }

    static char type_of(uint32_t mode) { return S_ISREG(mode) ? 'f' : S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : 'o'; }

    Phase phase_ = Phase::open;
};

}  // namespace

std::unique_ptr<BlockWork> make_list(std::shared_ptr<Operation> operation) { return std::make_unique<ListWork>(std::move(operation)); }

}  // namespace kvlane
