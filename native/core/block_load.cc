// block_load.cc — a block file into memory: one read of header, payload and padding, then every check.
//
// The payload lands where the caller wants it before anything is verified; that is no harm, because
// only Status::ok says that it is a block. Wrong bytes are a miss, and a damaged file is offered to be
// set aside only when it contradicts itself: our magic is there (or nothing but zeros) and its own
// checksum, length or payload says otherwise.
//
// A file that is open here may lose its name and be overwritten with another block (recycling.h). So what
// does not fit is read once more, by its name: only what the same file says twice is damage.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "block_steps.h"
#include "header.h"
#include "paths.h"
#include "recycling.h"

namespace kvlane {
namespace {

class LoadWork final : public Steps {
  public:
    explicit LoadWork(std::shared_ptr<Operation> operation) : Steps(std::move(operation)), mark_(op_) {}

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!plain_name_space(op_.name_space) || !plain_hex(op_.hex)) return fail(-EINVAL, Phase::queue, "not a block name");
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        return open_and_read(lane, root);
    }

    std::optional<Transfer> resume(LaneContext& lane, int64_t moved) override {
        if (moved == -EINVAL && direct_) {  // some file systems refuse only when asked to read
            if (!go_buffered(lane)) return leave(lane, fail(moved, Phase::read));
            if (reinterpret_cast<uintptr_t>(op_.memory) % page_bytes == 0) lane.root_of(op_).direct_refused = true;
            got_ = 0;
            return next_part(lane);
        }
        if (moved < 0) {
            lane.suspect_root(op_, moved);
            if (is_gone(moved)) return gone(lane, moved, phase());
            return leave(lane, fail(moved, phase()));
        }
        if (moved > 0 && direct_) op_.result.uncached = true;
        got_ += static_cast<uint64_t>(moved);
        // A short read is no end: only what moves nothing is, or the size that the file has.
        if (moved > 0 && got_ < wanted_ && got_ < size_) {
            if (moved >= static_cast<int64_t>(page_bytes)) {
                got_ &= ~uint64_t{page_bytes - 1};
            } else if (direct_ && !go_buffered(lane)) {  // the next read begins within a page
                return leave(lane, fail(-EINVAL, Phase::read, "O_DIRECT cannot be switched off"));
            }
            return next_part(lane);
        }
        judge(lane);
        close(lane, fd_);
        if (op_.result.status == Status::corrupt && !std::exchange(again_, true)) return once_more(lane);
        if (op_.result.status == Status::corrupt && differs(lane)) {
            leave_it_there();
            return end(Status::not_found, 0, Phase::read, "it was overwritten while it was read");
        }
        return std::nullopt;
    }

  private:
    std::optional<Transfer> open_and_read(LaneContext& lane, Root* root) {
        fd_ = open_block(lane, op_, *root, direct_);
        if (fd_ < 0) return open_failed(fd_);
        FileStat found;
        const int stated = lane.stat(op_, fd_, found);
        if (is_gone(stated)) return gone(lane, stated, Phase::stat);
        if (stated < 0) return leave(lane, fail(stated, Phase::stat));
        if (!S_ISREG(found.mode)) return leave(lane, end(Status::corrupt, 0, Phase::stat, "not a regular file"));
        if (!direct_) root->direct_refused = true;
        if (direct_ && takes_no_direct(found)) {
            root->direct_refused = true;
            if (!go_buffered(lane)) return leave(lane, fail(-EINVAL, Phase::open, "O_DIRECT cannot be switched off"));
        }
        inode_ = found.inode;
        modified_ns_ = found.modified_ns;
        size_ = found.size;
        // A file of another size is no block of this length: its header alone says what it is.
        wanted_ = size_ == file_bytes(op_.bytes) ? size_ : header_bytes;
        return next_part(lane);
    }

    std::optional<Transfer> gone(LaneContext& lane, int64_t error, Phase at) {
        close(lane, fd_);
        if (std::exchange(again_, true)) return end(Status::not_found, static_cast<int>(error), at, "another host removed or replaced it");
        return afresh(lane);
    }

    // What the file said about itself, to compare with what it says the second time.
    struct Account {
        uint64_t inode, modified_ns, size, header_xxh3;
        bool operator==(const Account&) const = default;
    };
    Account account(LaneContext& lane) const { return {inode_, modified_ns_, size_, xxh3(lane.header_page(), got_ < header_bytes ? got_ : header_bytes)}; }
    bool differs(LaneContext& lane) const { return !(first_ == account(lane)); }

    std::optional<Transfer> once_more(LaneContext& lane) {
        first_ = account(lane);
        leave_it_there();
        return afresh(lane);
    }

    std::optional<Transfer> afresh(LaneContext& lane) {
        got_ = 0;
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        return open_and_read(lane, root);
    }

    Phase phase() const { return wanted_ == header_bytes && op_.bytes > 0 ? Phase::header : Phase::read; }

    std::nullopt_t open_failed(int error) {
        switch (-error) {
            case ENOENT: return end(Status::not_found, error, Phase::open);
            case ELOOP:  // a symbolic link
            case EXDEV:  // it leads out of the root
                return end(Status::corrupt, error, Phase::open, "a symbolic link stands in the way");
            case ENXIO: return end(Status::corrupt, error, Phase::open, "not a regular file");  // a socket
            default: return fail(error, Phase::open);
        }
    }

    std::nullopt_t leave(LaneContext& lane, std::nullopt_t ended) {
        close(lane, fd_);
        return ended;
    }

    bool go_buffered(LaneContext& lane) {
        direct_ = false;
        return lane.drop_direct(op_, fd_) >= 0;
    }

    std::optional<Transfer> next_part(LaneContext& lane) {
        Transfer transfer;
        transfer.what = Transfer::What::read;
        transfer.fd = fd_;
        block_parts(transfer, lane.header_page(), op_.memory, wanted_ == header_bytes ? 0 : op_.bytes, lane.tail_page());
        skip_done(transfer, got_);
        return transfer;
    }

    std::nullopt_t damaged(Phase at, const char* how) {
        op_.result.aside_inode = inode_;
        op_.result.aside_modified_ns = modified_ns_;
        return end(Status::corrupt, 0, at, how);
    }

    void leave_it_there() { op_.result.aside_inode = op_.result.aside_modified_ns = 0; }

    std::nullopt_t judge(LaneContext& lane) {
        const auto& page = *reinterpret_cast<const HeaderPage*>(lane.header_page());
        const uint64_t header_got = got_ < header_bytes ? got_ : header_bytes;
        switch (judge_header(page, header_got)) {
            case HeaderVerdict::foreign: return end(Status::corrupt, 0, Phase::header, "not a kvlane block");
            case HeaderVerdict::newer_format: return end(Status::newer_format, 0, Phase::header);
            case HeaderVerdict::blank: return damaged(Phase::header, size_ == 0 ? "the file is empty" : "the header page is blank");
            case HeaderVerdict::contradicts: return damaged(Phase::header, "the header does not fit its checksum");
            case HeaderVerdict::valid: break;
        }
        if (!header_names(page, op_.name_space, op_.hex)) return end(Status::corrupt, 0, Phase::header, "it holds the block of another key");
        if (page.payload_bytes > size_ || size_ != file_bytes(page.payload_bytes)) return damaged(Phase::header, "its length is not what its header says");
        if (page.payload_bytes != op_.bytes) {
            op_.result.stored_bytes = page.payload_bytes;
            return end(Status::length_mismatch, 0, Phase::header);
        }
        if (got_ < wanted_) return damaged(Phase::read, "it ends before its length");
        const uint64_t whole = op_.bytes & ~uint64_t{page_bytes - 1};
        const uint64_t rest = op_.bytes - whole;
        if (payload_xxh3(op_.memory, whole, lane.tail_page(), rest) != page.payload_xxh3) return damaged(Phase::read, "the payload does not fit its checksum");
        if (rest > 0) std::memcpy(op_.memory + whole, lane.tail_page(), rest);
        return done(Phase::close);
    }

    const LoadMark mark_;
    int fd_ = -1;
    bool direct_ = false;
    bool again_ = false;
    Account first_ = {};
    uint64_t inode_ = 0;
    uint64_t modified_ns_ = 0;
    uint64_t size_ = 0;
    uint64_t wanted_ = 0;  // bytes to read
    uint64_t got_ = 0;     // so many of them are there
};

}  // namespace

std::unique_ptr<BlockWork> make_load(std::shared_ptr<Operation> operation) { return std::make_unique<LoadWork>(std::move(operation)); }

}  // namespace kvlane
