// block_lease.cc — the lease in collector/: looked at, taken, renewed, left; and two signs by which the others and its holder talk.
//
// It is a claim that others watch, and no lock: whoever sees that its content has not changed for long takes the next number,
// and the old holder hears of it when he renews, or when he removes with a fence (lease.h). Nothing here compares clocks.
// A file of it appears whole, and it keeps its number: leaving changes the content only. On a disk without room, just where somebody must remove
// blocks, it is renewed by its time alone and taken as an empty file, which want no room: so who watches looks at the time, too.
//
// A sign is an empty file, `want` or `made`, and says something by a time of modification that changes: that wants no room either. Only the lease's holder makes
// the files, with the lease, so that they are there when the disk is full; and where they are not, nobody listens.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "block_steps.h"
#include "json_text.h"
#include "lease.h"
#include "paths.h"
#include "plain_text.h"
#include "store_identity.h"

namespace kvlane {
namespace {

constexpr uint64_t exact_max = uint64_t{1} << 53;  // a larger number would be another one in JavaScript
constexpr size_t lease_text_bytes_max = 1024;  // host, process and a count are some hundred; read and written in one call
constexpr const char* left_text = "left";
constexpr int looks_max = 3;  // the highest may go while it is being opened, but only because the next but one has been taken
// By the file system's own clock: far longer than an operation waits, and one that is stuck for longer finds its name gone.
constexpr uint64_t abandoned_after_ns = 600'000'000'000;

class LeaseWork final : public Steps {
  public:
    using Steps::Steps;

    std::optional<Transfer> start(LaneContext& lane) override {
        const bool signs = op_.lease == LeaseAction::listen || op_.lease == LeaseAction::tell;
        if (signs && op_.text != want_name && op_.text != made_name) return fail(-EINVAL, Phase::queue, "a sign is want or made");
        const bool writes = !signs && op_.lease != LeaseAction::look;
        const std::string& text = op_.lease == LeaseAction::leave ? left_ : op_.text;
        if (writes && (op_.number == 0 || op_.number > lease_number_max)) {
            return fail(-EINVAL, Phase::queue, "a lease's number must be from 1 to " + std::to_string(lease_number_max));
        }
        if (writes && (text.empty() || text.size() > lease_text_bytes_max || !one_line_of_text(text))) {
            return fail(-EINVAL, Phase::queue, "a lease's content must be one line of 1 to " + std::to_string(lease_text_bytes_max) + " bytes");
        }
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        if (signs) return sign(lane, root->fd);
        if (!writes) return look(lane, root->fd);
        Leases leases;
        const int read = read_leases(lane, op_, root->fd, leases);
        if (read < 0) return fail(read, Phase::open, lease_trouble(read));
        const bool takes = op_.lease == LeaseAction::take;
        if (takes ? leases.highest() >= op_.number : leases.highest() != op_.number) return fenced(leases);
        Phase phase = Phase::open;
        int directory = open_directory(lane, op_, root->fd, collector_name, takes, directory_mode(op_.file_mode), phase);
        if (directory < 0) return fail(directory, phase, "the directory collector/");
        write(lane, root->fd, directory, text);
        close(lane, directory);
        return std::nullopt;
    }

  private:
    std::nullopt_t write(LaneContext& lane, int root, int directory, const std::string& text) {
        const bool takes = op_.lease == LeaseAction::take;
        const std::string name = std::to_string(op_.number);
        Phase phase = Phase::open;
        // Only what is taken is forced out: a power cut ends those who watch whether it changes, too.
        const Publish how = takes ? Publish::only_if_absent : Publish::replace;
        const Force force = takes ? Force::out : Force::not_at_all;
        int published = publish_small_file(lane, op_, directory, name.c_str(), text, how, op_.file_mode, phase, force);
        if (published == -ENOSPC || published == -EDQUOT) {
            if (op_.lease == LeaseAction::take) published = publish_small_file(lane, op_, directory, name.c_str(), "", how, op_.file_mode, phase, force);
            if (op_.lease == LeaseAction::renew) published = touch(lane, directory, name, phase);
        }
        if (published < 0 && published != -EEXIST) return fail(published, phase, "the lease collector/" + name);
        if (published == 0 && takes) op_.result.uncached = true;
        Leases leases;
        const int read = read_leases(lane, op_, root, leases);
        if (read < 0) return fail(read, Phase::open, lease_trouble(read));
        if (published == -EEXIST) return fenced(leases);
        if (leases.highest() != op_.number) {
            // Others went past it between the two looks, and theirs counts. Ours must not stay behind as if it had been one.
            if (takes && leases.highest() > op_.number) lane.unlink_own(op_, directory, name.c_str());
            return fenced(leases);
        }
        FileStat found;
        const int stated = stat_of(lane, directory, name, found, phase);
        if (stated < 0) return fail(stated, phase, "the lease collector/" + name);
        if (takes) sweep(lane, directory, leases, found.modified_ns);
        if (!leases.want) make_sign(lane, directory, want_name);
        if (!leases.made) make_sign(lane, directory, made_name);
        // A share of the file system is asked for with the lease; where it is not told, the others know no less than before.
        // Some say as many blocks as the field holds: the product must not come round to a small one, of which blocks would be removed.
        FileSystemRoom room;
        uint64_t total_bytes = 0;
        const bool told = lane.room(op_, root, room) == 0 && !__builtin_mul_overflow(room.blocks, room.block_bytes, &total_bytes) && total_bytes <= exact_max;
        return answer(op_.number, found.modified_ns, nullptr, told ? total_bytes : 0);
    }

    // What came before, and what others began and never published.
    void sweep(LaneContext& lane, int directory, const Leases& leases, uint64_t now_ns) {
        for (const uint64_t number : leases.numbers) {
            if (number + 1 < op_.number && lane.unlink(op_, directory, std::to_string(number).c_str()) == -call_refused) return;
        }
        for (const std::string& name : leases.drafts) {
            FileStat found;
            const int stated = lane.stat_name(op_, directory, name.c_str(), found);
            if (stated == -call_refused) return;
            if (stated == 0 && found.changed_ns + abandoned_after_ns < now_ns) lane.unlink(op_, directory, name.c_str());
        }
    }

    int touch(LaneContext& lane, int directory, const std::string& name, Phase& phase) {
        phase = Phase::open;
        int fd = lane.open(op_, directory, name.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
        if (fd < 0) return fd;
        phase = Phase::stat;
        const int touched = lane.touch(op_, fd);
        close(lane, fd);
        return touched;
    }

    int stat_of(LaneContext& lane, int directory, const std::string& name, FileStat& found, Phase& phase) {
        phase = Phase::open;
        int fd = lane.open(op_, directory, name.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
        if (fd < 0) return fd;
        phase = Phase::stat;
        const int stated = lane.stat(op_, fd, found);
        close(lane, fd);
        return stated;
    }

    // Without it the others hear NO_SPACE at once; the next renewal tries again.
    void make_sign(LaneContext& lane, int directory, const char* name) {
        int fd = lane.open(op_, directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY, op_.file_mode);
        close(lane, fd);
    }

    // Opened, and not looked at by its name: on a network file system that asks the server. What is not an empty file of one name is nobody's
    // sign: it never changes, and its time is not touched, which might be that of a file elsewhere.
    std::nullopt_t sign(LaneContext& lane, int root) {
        const std::string path = std::string(collector_name) + "/" + op_.text;
        const bool tells = op_.lease == LeaseAction::tell;
        Phase phase = Phase::open;
        int fd = lane.open(op_, root, path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
        if (fd == -ENOENT && !tells) return answer(0, 0, nullptr);
        if (fd < 0) return fail(fd, phase, "the sign " + path);
        FileStat found;
        phase = Phase::stat;
        int result = lane.stat(op_, fd, found);
        const bool is_sign = S_ISREG(found.mode) && found.size == 0 && found.links == 1;
        if (result == 0 && tells) result = is_sign ? lane.touch(op_, fd) : -ENOTSUP;
        close(lane, fd);
        if (result < 0) return fail(result, phase, "the sign " + path);
        return answer(0, is_sign ? found.modified_ns : 0, nullptr);
    }

    std::nullopt_t look(LaneContext& lane, int root) {
        int64_t result = -ENOENT;
        Phase phase = Phase::open;
        for (int i = 0; i < looks_max && is_gone(result); i++) {
            Leases leases;
            phase = Phase::open;
            const int read = read_leases(lane, op_, root, leases);
            if (read < 0) return fail(read, phase, lease_trouble(read));
            if (leases.highest() == 0) return answer(0, 0, &none_);
            FileStat found;
            std::string text;
            const std::string path = std::string(collector_name) + "/" + std::to_string(leases.highest());
            result = read_small_file(lane, op_, root, path.c_str(), text, phase, &found);
            // Of one that is no file, a link or far too long nobody has made a lease: it will never change, and is passed by.
            if (result == -not_a_record || result == -ELOOP) {
                text.clear();
                result = 0;
            }
            if (result >= 0) return answer(leases.highest(), found.modified_ns, &text);
        }
        return fail(result, phase, "the highest lease in collector/");
    }

    std::nullopt_t answer(uint64_t number, uint64_t modified_ns, const std::string* content, uint64_t total_bytes = 0) {
        return end(Status::ok, 0, Phase::stat, told(number, modified_ns, content, total_bytes));
    }

    std::nullopt_t fenced(const Leases& leases) { return end(Status::fenced, 0, Phase::stat, told(leases.highest(), 0, nullptr, 0)); }

    static std::string told(uint64_t number, uint64_t modified_ns, const std::string* content, uint64_t total_bytes) {
        std::string text = "{\"number\":" + std::to_string(number);
        if (content != nullptr) text += ",\"content\":" + json_quoted(one_line_of_text(*content) ? *content : percent_escaped(*content));
        if (total_bytes != 0) text += ",\"total_bytes\":" + std::to_string(total_bytes);
        return text + ",\"modified_ns\":\"" + std::to_string(modified_ns) + "\"}";
    }

    const std::string none_;
    const std::string left_ = left_text;
};

}  // namespace

std::unique_ptr<BlockWork> make_lease(std::shared_ptr<Operation> operation) { return std::make_unique<LeaseWork>(std::move(operation)); }

}  // namespace kvlane
