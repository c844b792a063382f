// block_store.cc — memory into a block file that appears whole or never.
//
// header, payload and padding go into a file of our own in one write; the name is taken last, by
// rename, and only while somebody still waits for it (begin_commit). Whatever happens before that
// leaves nothing but, when even the clean-up cannot be made, a file that nobody will ever read.
//
// That file is a temporary, or one that was a block before and is overwritten (recycling.h). What a
// replaced block leaves is taken by exchanging the two names, and recycled later. Once written to, a
// file is published or unlinked, and never goes back.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "block_steps.h"
#include "header.h"
#include "mount.h"
#include "paths.h"
#include "recycling.h"

namespace kvlane {
namespace {

constexpr int temporary_tries_max = 3;  // the name is unique already; a second try is for O_DIRECT refused at open

class StoreWork final : public Steps {
  public:
    explicit StoreWork(std::shared_ptr<Operation> operation) : Steps(std::move(operation)), recycling_(op_) {}

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!plain_name_space(op_.name_space) || !plain_hex(op_.hex)) return fail(-EINVAL, Phase::queue, "not a block name");
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        name_ = block_file(op_.hex);
        direct_ = !root->direct_refused;
        Phase phase = Phase::open;
        open_target(lane, root->fd, phase);
        if (no_room(directory_)) recycling_.begin(lane, root->fd);
        while (no_room(directory_) && recycling_.make_room(lane)) open_target(lane, root->fd, phase);
        if (directory_ < 0) return leave(lane, fail(directory_, phase, "the directory of the block"));
        if (!op_.replace) {
            const int there = look(lane, phase);
            if (there < 0) return leave(lane, fail(there, phase));
            if (there == held) return leave(lane, keep());
            // Too short for a block: no use to anybody, and overwritten below.
            overwrite_ = there == useless;
        }
        recycling_.begin(lane, root->fd);
        if (op_.replace && op_.mount->recycle.exchanges()) recycling_.see(lane, root->fd, directory_, name_.c_str());
        if (!recycle(lane)) {
            in_recycle_ = recycling_.seen() && recycling_.makes_alike(lane, directory_);  // where the replaced file is to end up
            const int created = create(lane);
            if (created < 0) return leave(lane, fail(created, Phase::open));
        }
        write_header_and_tail(lane);
        step_ = Step::write;
        return next_part(lane);
    }

    std::optional<Transfer> resume(LaneContext& lane, int64_t moved) override {
        if (moved < 0) lane.suspect_root(op_, moved);
        switch (step_) {
            case Step::write: return written(lane, moved);
            case Step::sync_file:
                if (moved < 0) return give_up(lane, fail(moved, Phase::fsync));
                return take_name(lane);
            case Step::sync_directory:
                // The block is there; whether it would outlast a power cut is what was asked and is not known.
                if (moved < 0) return give_up(lane, fail(moved, Phase::fsync, "the block is stored, its directory could not be forced out"));
                op_.result.uncached = true;
                keep_replaced(lane);
                return leave(lane, done(Phase::fsync));
        }
        return std::nullopt;
    }

  private:
    enum class Step : uint8_t { write, sync_file, sync_directory };
    enum Presence : int { absent, held, useless };

    void open_target(LaneContext& lane, int root, Phase& phase) {
        directory_ = open_directory(lane, op_, root, block_directory(op_.name_space, op_.hex), true, directory_mode(op_.file_mode), phase);
    }

    std::nullopt_t leave(LaneContext& lane, std::nullopt_t ended) {
        recycling_.leave(lane);
        close(lane, readable_directory_);
        close(lane, directory_);
        return ended;
    }

    // Before the rename: nothing of ours may stay.
    std::nullopt_t give_up(LaneContext& lane, std::nullopt_t ended) {
        close(lane, file_);
        unlink_temporary(lane);
        return leave(lane, ended);
    }

    void unlink_temporary(LaneContext& lane) {
        if (!temporary_.empty()) lane.unlink_own(op_, temporary_directory(), temporary_.c_str());
        temporary_.clear();
    }

    int temporary_directory() const { return in_recycle_ ? recycling_.directory() : directory_; }

    std::nullopt_t keep() {
        op_.result.kept = true;
        return done(Phase::stat);
    }

    // Presence, or a negative errno.
    int look(LaneContext& lane, Phase& phase) {
        phase = Phase::open;
        int fd = lane.open(op_, directory_, name_.c_str(), O_PATH);
        if (fd == -ENOENT) return absent;
        if (fd == -ELOOP) return useless;  // a symbolic link: the rename replaces the link, not what it leads to
        if (fd < 0) return fd;
        phase = Phase::stat;
        FileStat found;
        const int stated = lane.stat(op_, fd, found);
        close(lane, fd);
        if (stated == -ESTALE || stated == -ENOENT) return absent;  // only this host's caches still had the name
        if (stated < 0) return stated;
        return S_ISREG(found.mode) && found.size >= header_bytes ? held : useless;
    }

    // A file that was a block before.
    bool recycle(LaneContext& lane) {
        bool direct = direct_;
        const int taken = recycling_.take(lane, directory_, file_bytes(op_.bytes), direct);
        if (taken < 0) return false;
        file_ = taken;
        direct_ = direct;
        temporary_ = recycling_.place();
        recycled_ = in_recycle_ = true;
        return true;
    }

    int create(LaneContext& lane) {
        int created = create_once(lane);
        if (created < 0 && created != -call_refused && std::exchange(in_recycle_, false)) created = create_once(lane);
        while (no_room(created) && recycling_.make_room(lane)) created = create_once(lane);
        return created;
    }

    static bool no_room(int64_t result) { return result == -ENOSPC || result == -EDQUOT; }

    int create_once(LaneContext& lane) {
        int result = -EEXIST;
        for (int i = 0; i < temporary_tries_max; i++) {
            next_temporary();
            const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY | (direct_ ? O_DIRECT : 0);
            result = lane.open(op_, temporary_directory(), temporary_.c_str(), flags, op_.file_mode);
            if (result >= 0) {
                file_ = result;
                return 0;
            }
            if (result == -EINVAL && direct_) {
                // Linux creates the file before it finds that O_DIRECT is not to be had.
                lane.unlink_own(op_, temporary_directory(), temporary_.c_str());
                direct_ = false;
                lane.root_of(op_).direct_refused = true;
            } else if (result != -EEXIST) {
                break;
            }
        }
        // An error may come after the file was made (interrupted, or lost on the way back): the name is ours alone.
        if (result != -EEXIST && result != -call_refused) lane.unlink_own(op_, temporary_directory(), temporary_.c_str());
        temporary_.clear();
        return result;
    }

    void next_temporary() {
        if (in_recycle_) recycling_.new_place();
        temporary_ = in_recycle_ ? recycling_.place() : temporary_name(op_.hex);
    }

    void write_header_and_tail(LaneContext& lane) {
        const uint64_t whole = op_.bytes & ~uint64_t{page_bytes - 1};
        if (whole < op_.bytes) {
            std::memset(lane.tail_page(), 0, page_bytes);
            std::memcpy(lane.tail_page(), op_.memory + whole, op_.bytes - whole);
        }
        HeaderFields fields = {};
        fields.name_space = op_.name_space;
        fields.hex = op_.hex;
        fields.payload_bytes = op_.bytes;
        fields.payload_xxh3 = payload_xxh3(op_.memory, whole, lane.tail_page(), op_.bytes - whole);
        fields.created_unix_us = unix_us();
        fields.writer = writer_name();
        write_header(*reinterpret_cast<HeaderPage*>(lane.header_page()), fields);
    }

    std::optional<Transfer> next_part(LaneContext& lane) {
        Transfer transfer;
        transfer.what = Transfer::What::write;
        transfer.fd = file_;
        block_parts(transfer, lane.header_page(), op_.memory, op_.bytes, lane.tail_page());
        skip_done(transfer, put_);
        return transfer;
    }

    std::optional<Transfer> written(LaneContext& lane, int64_t moved) {
        if (moved == -EINVAL && direct_) {
            direct_ = false;
            if (lane.drop_direct(op_, file_) < 0) return give_up(lane, fail(moved, Phase::write));
            if (reinterpret_cast<uintptr_t>(op_.memory) % page_bytes == 0) lane.root_of(op_).direct_refused = true;
            return next_part(lane);
        }
        if (no_room(moved) && recycling_.make_room(lane)) return next_part(lane);
        if (moved < 0) return give_up(lane, fail(moved, Phase::write));
        const uint64_t before = put_;
        put_ += static_cast<uint64_t>(moved);
        if (put_ < file_bytes(op_.bytes)) {
            if (direct_) put_ &= ~uint64_t{page_bytes - 1};
            if (put_ <= before) return give_up(lane, fail(-EIO, Phase::write, "the file system takes no more bytes"));
            return next_part(lane);
        }
        if (direct_) op_.result.uncached = true;
        if (!op_.durable) return take_name(lane);
        step_ = Step::sync_file;
        return fsync_of(file_);
    }

    Transfer fsync_of(int fd) {
        Transfer transfer;
        transfer.what = Transfer::What::fsync;
        transfer.fd = fd;
        return transfer;
    }

    // The file is complete. From here on: is it still wanted?
    std::optional<Transfer> take_name(LaneContext& lane) {
        const int closed = lane.close(op_, file_);  // a network file system says here what became of the writes
        file_ = -1;
        if (closed < 0) return give_up(lane, fail(closed, Phase::close));
        const bool exclusive = !op_.replace && !overwrite_;
        const bool exchange = in_recycle_ && recycling_.seen();
        if (!lane.still_wanted(op_) || !op_.begin_commit()) return give_up(lane, end(Status::expired, 0, Phase::close));
        int renamed = -EINVAL;
        if (exclusive) renamed = rename(lane, RENAME_NOREPLACE);
        if (exclusive && renamed == -EEXIST) return give_up(lane, keep());  // another sidecar was faster
        if (exchange) renamed = rename(lane, RENAME_EXCHANGE);
        exchanged_ = exchange && renamed == 0;
        if (exchange && renamed == -EINVAL) op_.mount->recycle.no_exchange();
        if (exchange && renamed == -ENOENT) renamed = -EINVAL;  // the block went away meanwhile
        if (renamed == -EINVAL) renamed = rename(lane, 0);
        if ((renamed == -ENOENT || renamed == -EXDEV) && in_recycle_) return once_more(lane, renamed);
        if (renamed < 0) return give_up(lane, fail(renamed, Phase::rename));
        if (recycled_) op_.mount->recycle.count_recycled();
        if (!exchanged_) temporary_.clear();
        if (!op_.durable) {
            keep_replaced(lane);
            return leave(lane, done(Phase::rename));
        }
        // New directories above need no call of their own: ext4 and xfs force the whole journal up to here.
        readable_directory_ = lane.open(op_, directory_, ".", O_RDONLY | O_DIRECTORY);
        if (readable_directory_ < 0) return give_up(lane, fail(readable_directory_, Phase::fsync, "the block is stored, its directory could not be forced out"));
        step_ = Step::sync_directory;
        return fsync_of(readable_directory_);
    }

    int rename(LaneContext& lane, uint32_t flags) { return lane.rename(op_, temporary_directory(), temporary_.c_str(), directory_, name_.c_str(), flags); }

    // Somebody tidied our file away, or files may not go from recycle/ to the block's directory (project quotas): into a
    // temporary beside the block then.
    std::optional<Transfer> once_more(LaneContext& lane, int why) {
        if (why == -EXDEV) op_.mount->recycle.turn_off();
        if (recycled_) op_.mount->recycle.count_lost();
        unlink_temporary(lane);
        recycled_ = in_recycle_ = false;
        const int created = create(lane);
        if (created < 0) return leave(lane, fail(created, Phase::open));
        put_ = 0;
        step_ = Step::write;
        return next_part(lane);
    }

    // After the exchange what was replaced lies where our file was.
    void keep_replaced(LaneContext& lane) {
        if (exchanged_) recycling_.keep(lane, true);
        temporary_.clear();
    }

    Step step_ = Step::write;
    int directory_ = -1;
    int readable_directory_ = -1;  // for fsync, which O_PATH does not allow
    int file_ = -1;
    bool direct_ = false;
    bool overwrite_ = false;
    bool recycled_ = false;   // file_ was a block before
    bool in_recycle_ = false;  // temporary_ lies in recycle/
    bool exchanged_ = false;  // the block is there, and temporary_ is what it replaced
    uint64_t put_ = 0;
    std::string name_;
    std::string temporary_;
    Recycling recycling_;
};

}  // namespace

std::unique_ptr<BlockWork> make_store(std::shared_ptr<Operation> operation) { return std::make_unique<StoreWork>(std::move(operation)); }

}  // namespace kvlane
