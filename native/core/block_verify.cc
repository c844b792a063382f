// block_verify.cc — one block read whole and checked as a load checks it; nothing is changed, nothing set aside.
//
// Its length is what the header says, so no memory is asked of the caller: the bytes go piece by piece through
// memory of this operation's own, and past the page cache where the file system can.
// As with a load, only what the same file says twice is damage: the first account may be of a file that was
// overwritten meanwhile (recycling.h).
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "block_steps.h"
#include "header.h"
#include "paths.h"
#include "recycling.h"

namespace kvlane {
namespace {

// At a call. A lane that is stuck in one keeps it all; from here up, a disk gives hardly more for it.
constexpr size_t piece_bytes = 256 * 1024;

// Its own mapping, so that it goes back whole.
class Piece {
  public:
    Piece() : memory_(::mmap(nullptr, piece_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
        if (memory_ == MAP_FAILED) throw std::bad_alloc();
    }
    ~Piece() { ::munmap(memory_, piece_bytes); }
    Piece(const Piece&) = delete;
    Piece& operator=(const Piece&) = delete;
    std::byte* data() const { return static_cast<std::byte*>(memory_); }

  private:
    void* const memory_;
};

class VerifyWork final : public Steps {
  public:
    explicit VerifyWork(std::shared_ptr<Operation> operation) : Steps(std::move(operation)), mark_(op_) {}

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!plain_name_space(op_.name_space) || !plain_hex(op_.hex)) return fail(-EINVAL, Phase::queue, "not a block name");
        return open_and_read(lane);
    }

    std::optional<Transfer> resume(LaneContext& lane, int64_t moved) override {
        if (moved == -EINVAL && direct_) {  // some file systems refuse only when asked to read
            if (!go_buffered(lane)) return leave(lane, fail(moved, Phase::read));
            lane.root_of(op_).direct_refused = true;
            return next_part();
        }
        if (is_gone(moved)) {
            lane.suspect_root(op_, moved);
            return gone(lane, moved, Phase::read);
        }
        if (moved < 0) {
            lane.suspect_root(op_, moved);
            return leave(lane, fail(moved, Phase::read));
        }
        if (moved > 0 && direct_) op_.result.uncached = true;
        got_ += std::min(static_cast<size_t>(moved), piece_bytes - got_);
        // A short read is no end: only what moves nothing is, or the size that the file has.
        if (moved > 0 && got_ < piece_bytes && at_ + got_ < size_) {
            if (moved >= static_cast<int64_t>(page_bytes)) {
                got_ &= ~(page_bytes - 1);
            } else if (direct_ && !go_buffered(lane)) {  // the next read begins within a page
                return leave(lane, fail(-EINVAL, Phase::read, "O_DIRECT cannot be switched off"));
            }
            return next_part();
        }
        if (at_ == 0 ? !header() : !payload(0)) return ended(lane);
        if (hashed_ < payload_bytes_) {
            at_ += piece_bytes;
            got_ = 0;
            return next_part();
        }
        if ((payloads_are_unchecked() ? 0 : checksum_.value()) != payload_xxh3_) {
            damaged(Phase::read, "the payload does not fit its checksum");
        } else {
            op_.result.stored_bytes = payload_bytes_;
            done(Phase::close);
        }
        return ended(lane);
    }

  private:
    std::optional<Transfer> open_and_read(LaneContext& lane) {
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        at_ = got_ = hashed_ = payload_bytes_ = header_xxh3_ = 0;
        checksum_.begin();
        fd_ = open_block(lane, op_, *root, direct_);
        switch (fd_) {
            case -ENOENT: return end(Status::not_found, fd_, Phase::open);
            case -ELOOP:
            case -EXDEV: return end(Status::corrupt, fd_, Phase::open, "a symbolic link stands in the way");
            case -ENXIO: return end(Status::corrupt, fd_, Phase::open, "not a regular file");  // a socket
            default: break;
        }
        if (fd_ < 0) return fail(fd_, Phase::open);
        FileStat found;
        const int stated = lane.stat(op_, fd_, found);
        if (is_gone(stated)) return gone(lane, stated, Phase::stat);
        if (stated < 0) return leave(lane, fail(stated, Phase::stat));
        if (!S_ISREG(found.mode)) return leave(lane, end(Status::corrupt, 0, Phase::stat, "not a regular file"));
        if (direct_ && takes_no_direct(found) && !go_buffered(lane)) return leave(lane, fail(-EINVAL, Phase::open, "O_DIRECT cannot be switched off"));
        if (!direct_) root->direct_refused = true;
        inode_ = found.inode;
        modified_ns_ = found.modified_ns;
        size_ = found.size;
        return next_part();
    }

    std::optional<Transfer> gone(LaneContext& lane, int64_t error, Phase at) {
        close(lane, fd_);
        if (std::exchange(again_, true)) return end(Status::not_found, error, at, "another host removed or replaced it");
        return open_and_read(lane);
    }

    std::nullopt_t leave(LaneContext& lane, std::nullopt_t how) {
        close(lane, fd_);
        return how;
    }

    bool go_buffered(LaneContext& lane) {
        direct_ = false;
        return lane.drop_direct(op_, fd_) >= 0;
    }

    Transfer next_part() {
        Transfer transfer;
        transfer.what = Transfer::What::read;
        transfer.fd = fd_;
        transfer.parts[0] = {piece_.data() + got_, piece_bytes - got_};
        transfer.part_count = 1;
        transfer.offset = static_cast<int64_t>(at_ + got_);
        return transfer;
    }

    void damaged(Phase at, const char* how) {
        op_.result.aside_inode = inode_;
        op_.result.aside_modified_ns = modified_ns_;
        end(Status::corrupt, 0, at, how);
    }

    // The first piece. False: the end is known.
    bool header() {
        const auto& page = *reinterpret_cast<const HeaderPage*>(piece_.data());
        const size_t header_got = std::min<size_t>(got_, header_bytes);
        header_xxh3_ = xxh3(piece_.data(), header_got);
        switch (judge_header(page, header_got)) {
            case HeaderVerdict::foreign: return end(Status::corrupt, 0, Phase::header, "not a kvlane block"), false;
            case HeaderVerdict::newer_format: return end(Status::newer_format, 0, Phase::header), false;
            case HeaderVerdict::blank: return damaged(Phase::header, size_ == 0 ? "the file is empty" : "the header page is blank"), false;
            case HeaderVerdict::contradicts: return damaged(Phase::header, "the header does not fit its checksum"), false;
            case HeaderVerdict::valid: break;
        }
        if (!header_names(page, op_.name_space, op_.hex)) return end(Status::corrupt, 0, Phase::header, "it holds the block of another key"), false;
        if (page.payload_bytes > size_ || size_ != file_bytes(page.payload_bytes)) return damaged(Phase::header, "its length is not what its header says"), false;
        payload_bytes_ = page.payload_bytes;
        payload_xxh3_ = page.payload_xxh3;
        return payload(header_bytes);
    }

    // What of the piece is payload, from `from` on. False: the file ends too early.
    bool payload(size_t from) {
        const uint64_t bytes = std::min<uint64_t>(payload_bytes_ - hashed_, got_ - from);
        checksum_.add(piece_.data() + from, static_cast<size_t>(bytes));
        hashed_ += bytes;
        if (hashed_ == payload_bytes_ || got_ == piece_bytes) return true;
        damaged(Phase::read, "it ends before its length");
        return false;
    }

    // What the file said about itself, to compare with what it says the second time.
    struct Account {
        uint64_t inode, modified_ns, size, header_xxh3;
        bool operator==(const Account&) const = default;
    };

    std::optional<Transfer> ended(LaneContext& lane) {
        close(lane, fd_);
        if (op_.result.status != Status::corrupt) return std::nullopt;
        const Account account = {inode_, modified_ns_, size_, header_xxh3_};
        const bool differs = again_ && !(first_ == account);
        if (std::exchange(again_, true) && !differs) return std::nullopt;
        op_.result.aside_inode = op_.result.aside_modified_ns = 0;
        if (differs) return end(Status::not_found, 0, Phase::read, "it was overwritten while it was read");
        first_ = account;
        return open_and_read(lane);
    }

    const LoadMark mark_;
    Piece piece_;
    Xxh3 checksum_;
    int fd_ = -1;
    bool direct_ = false;
    bool again_ = false;
    Account first_ = {};
    uint64_t inode_ = 0;
    uint64_t modified_ns_ = 0;
    uint64_t size_ = 0;
    uint64_t at_ = 0;  // of the piece in the file
    size_t got_ = 0;   // so many bytes of it are there
    uint64_t header_xxh3_ = 0;
    uint64_t payload_bytes_ = 0;
    uint64_t payload_xxh3_ = 0;
    uint64_t hashed_ = 0;
};

}  // namespace

std::unique_ptr<BlockWork> make_verify(std::shared_ptr<Operation> operation) { return std::make_unique<VerifyWork>(std::move(operation)); }

}  // namespace kvlane
