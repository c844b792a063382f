// block_survey.cc — is this file system fit to hold a store? Tried on a directory of our own below the root, one step an operation.
//
// A step an operation, and not one operation for all, because any call may never return: then whoever asked knows which step
// it is in, and has what the others found. Nothing is kept between two steps but what lies in the directory, so `clean` can
// follow on any of them, also hours later. The root need not be a store, and a store there is not touched.
//
// What a step tells is JSON in Result::text, also when it fails: {"us":{"pwritev 4 KiB":[…],…}, …, "detail":"…"}.
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "block_steps.h"
#include "checksum.h"
#include "json_text.h"
#include "mount.h"
#include "paths.h"

namespace kvlane {
namespace {

constexpr const char* directory_prefix = ".kvlane-doctor-";
// All the names there ever are in it.
constexpr const char* block_name = "block";
constexpr const char* other_name = "other";
constexpr const char* fresh_name = "fresh";
constexpr const char* const all_names[] = {block_name, other_name, fresh_name};

constexpr size_t small_bytes = 4096;
constexpr unsigned small_count = 16;
constexpr size_t large_bytes = 1 << 20;
constexpr unsigned large_count = 8;
constexpr uint64_t large_from = large_bytes;  // the small ones before it, a hole in between
constexpr unsigned rename_count = 8;          // even: the name is the first one again

constexpr int only_write = O_WRONLY | O_NONBLOCK | O_NOCTTY;
constexpr int only_read = O_RDONLY | O_NONBLOCK | O_NOCTTY;

// Aligned for any O_DIRECT, and not on the heap: the kernel may write there long after everybody has given up.
class Buffer {
  public:
    Buffer() : memory_(::mmap(nullptr, large_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
        if (memory_ == MAP_FAILED) throw std::bad_alloc();
    }
    ~Buffer() { ::munmap(memory_, large_bytes); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    std::byte* data() { return static_cast<std::byte*>(memory_); }

  private:
    void* memory_;
};

class SurveyWork final : public Steps {
  public:
    using Steps::Steps;

    std::optional<Transfer> start(LaneContext& lane) override {
        lane_ = &lane;
        directory_name_ = directory_prefix + op_.hex;
        seed_ = xxh3(op_.hex.data(), op_.hex.size());
        static const std::map<std::string, void (SurveyWork::*)(), std::less<>> steps = {
            {"root", &SurveyWork::look},        {"make", &SurveyWork::make},         {"write", &SurveyWork::write},
            {"read", &SurveyWork::read},        {"rename", &SurveyWork::rename},     {"exclusive", &SurveyWork::exclusive},
            {"unlinked", &SurveyWork::unlinked}, {"list", &SurveyWork::list},        {"clean", &SurveyWork::clean},
        };
        const auto step = steps.find(op_.text);
        if (step == steps.end()) {
            ends(-EINVAL, Phase::queue, "there is no step " + op_.text);
        } else if (open_root()) {
            (this->*step->second)();
        }
        shut(file_);
        shut(directory_);
        shut(root_);
        return std::nullopt;
    }

  private:
    // ---- what is told ----

    template <typename Call>
    auto timed(const char* name, Call&& call) {
        const uint64_t begun_us = lane_->now_us();
        const auto result = call();
        times_[name].push_back(lane_->now_us() - begun_us);
        return result;
    }
    void tell(const char* name, const std::string& json) { facts_ += "," + json_quoted(name) + ":" + json; }
    void tell(const char* name, uint64_t number) { tell(name, std::to_string(number)); }
    void tell(const char* name, bool truth) { tell(name, std::string(truth ? "true" : "false")); }

    std::string told(const std::string& detail) const {
        std::string text = "{\"us\":{";
        for (const auto& [name, times] : times_) {
            if (text.back() != '{') text += ",";
            text += json_quoted(name) + ":[";
            for (const uint64_t us : times) text += (text.back() == '[' ? "" : ",") + std::to_string(us);
            text += "]";
        }
        return text + "}" + facts_ + ",\"detail\":" + json_quoted(detail) + "}";
    }
    void ends(int64_t error, Phase phase, const std::string& detail) {
        if (error < 0) fail(error, phase, told(detail));
        else end(Status::ok, 0, phase, told(detail));
        if (op_.result.text.empty()) op_.result.text = told(detail);  // past its deadline
    }
    void lies(Phase phase, const std::string& detail) { end(Status::corrupt, 0, phase, told(detail)); }

    void shut(int& fd) { close(*lane_, fd); }

    // ---- where ----

    bool open_root() {
        const std::string& path = op_.mount->root;
        root_ = timed("openat root", [&] { return lane_->open_root_by_path(op_, path.c_str()); });
        if (root_ >= 0) return true;
        const bool gone = root_ == -ENOENT || root_ == -ENOTDIR;
        if (gone) end(Status::not_found, root_, Phase::open, told("there is no directory " + path));
        else ends(root_, Phase::open, "the directory " + path + " cannot be opened");
        return false;
    }
    bool open_directory() {
        directory_ = lane_->open(op_, root_, directory_name_.c_str(), O_PATH | O_DIRECTORY);
        if (directory_ < 0) ends(directory_, Phase::open, "the directory of our own cannot be opened");
        return directory_ >= 0;
    }
    // With O_DIRECT if the file system takes it.
    int open_block(int flags) {
        direct_ = true;
        for (;;) {
            file_ = timed("openat2", [&] { return lane_->open(op_, directory_, block_name, flags | (direct_ ? O_DIRECT : 0), (flags & O_CREAT) != 0 ? 0600U : 0U); });
            if (file_ == -EPERM && (flags & O_NOATIME) != 0) flags &= ~O_NOATIME;
            else if (file_ == -EINVAL && direct_) {
                direct_ = false;
                if ((flags & O_CREAT) != 0) lane_->unlink_own(op_, directory_, block_name);  // Linux makes the file before it refuses O_DIRECT
            } else {
                return file_;
            }
        }
    }

    // ---- the steps ----

    void look() {
        FileStat stat;
        const int stated = timed("statx", [&] { return lane_->stat(op_, root_, stat, FileSystem::Freshness::forced); });
        if (stated < 0) return ends(stated, Phase::stat, "the directory does not tell what it is");
        tell("path", json_quoted(path_of(root_)));
        tell("mount_id", stat.mount_id);
        tell("device", json_quoted(std::to_string(stat.device_major) + ":" + std::to_string(stat.device_minor)));
        tell("owner", uint64_t{stat.owner});
        tell("mode", uint64_t{stat.mode & 07777U});
        FileSystemRoom room;
        const int counted = timed("fstatfs", [&] { return lane_->room(op_, root_, room); });
        if (counted < 0) return ends(counted, Phase::stat, "the file system does not tell how much room it has");
        tell("fs_type", json_quoted(fs_name(room.magic)));
        tell("block_bytes", room.block_bytes);
        tell("blocks", room.blocks);
        tell("blocks_free", room.blocks_free);
        tell("inodes", room.inodes);
        tell("inodes_free", room.inodes_free);
        int store = lane_->open(op_, root_, identity_name, O_PATH);
        if (store == -call_refused) return ends(store, Phase::open, "");
        tell("store", store >= 0);
        shut(store);
        std::vector<std::string> names;
        if (list_names(root_, names) == -call_refused) return ends(-call_refused, Phase::open, "");
        uint64_t others = 0;  // of doctors that were killed, or that run or hang just now
        for (const std::string& name : names) others += name.starts_with(directory_prefix) ? 1 : 0;
        tell("other_doctors", others);
        ends(0, Phase::stat, "");
    }

    // The kernel's own name for it, asked of /proc: no call on the mount.
    static std::string path_of(int fd) {
        char path[4096];
        const ssize_t length = ::readlink(("/proc/thread-self/fd/" + std::to_string(fd)).c_str(), path, sizeof path);
        return length > 0 ? std::string(path, static_cast<size_t>(length)) : std::string();
    }

    void make() {
        const int made = timed("mkdirat", [&] { return lane_->make_directory(op_, root_, directory_name_.c_str(), 0700); });
        if (made < 0) return ends(made, Phase::open, "no directory can be made");
        if (!open_directory()) return;
        if (open_block(O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY) < 0) return ends(file_, Phase::open, "no file can be made");
        FileStat stat;
        const int stated = timed("statx", [&] { return lane_->stat(op_, file_, stat, FileSystem::Freshness::forced); });
        if (stated < 0) return ends(stated, Phase::stat, "a new file does not tell what it is");
        tell("direct", direct_);
        if (stat.direct_align != FileStat::unknown) tell("direct_align", uint64_t{stat.direct_align});
        ends(0, Phase::stat, "");
    }

    void write() {
        if (!open_directory()) return;
        if (open_block(only_write) < 0) return ends(file_, Phase::open, "a file that was made cannot be opened for writing");
        if (!still_ours()) return;
        Buffer buffer;
        if (!each_piece([&](const char* name, uint64_t offset, size_t bytes) {
                fill(buffer.data(), offset, bytes);
                const int64_t moved = piece(Syscall::pwritev, name, buffer.data(), bytes, offset);
                if (moved == static_cast<int64_t>(bytes)) return true;
                ends(moved < 0 ? moved : -EIO, Phase::write, at("a write", offset, moved, bytes));
                return false;
            }, "pwritev 4 KiB", "pwritev 1 MiB")) return;
        tell("direct", direct_);
        const int synced = timed("fsync", [&] { return lane_->fsync(op_, file_); });
        if (synced < 0) return ends(synced, Phase::fsync, "fsync");
        const int fd = file_;
        file_ = -1;
        const int closed = timed("close", [&] { return lane_->close(op_, fd); });
        if (closed < 0) return ends(closed, Phase::close, "close, which is where some file systems say that a write failed");
        ends(0, Phase::close, "");
    }

    void read() {
        if (!open_directory()) return;
        if (open_block(only_read | O_NOATIME) < 0) return ends(file_, Phase::open, "a file that was written cannot be opened for reading");
        Buffer buffer;
        Buffer wanted;
        if (!each_piece([&](const char* name, uint64_t offset, size_t bytes) {
                std::memset(buffer.data(), 0, bytes);
                const int64_t moved = piece(Syscall::preadv, name, buffer.data(), bytes, offset);
                if (moved < 0) {
                    ends(moved, Phase::read, at("a read", offset, moved, bytes));
                    return false;
                }
                fill(wanted.data(), offset, bytes);
                if (moved == static_cast<int64_t>(bytes) && xxh3(buffer.data(), bytes) == xxh3(wanted.data(), bytes)) return true;
                lies(Phase::read, moved == static_cast<int64_t>(bytes) ? "other bytes are read at offset " + std::to_string(offset) + " than were written" : at("a read", offset, moved, bytes));
                return false;
            }, "preadv 4 KiB", "preadv 1 MiB")) return;
        tell("direct", direct_);
        // Where nobody says it: half a kilobyte, or the page that has just been read.
        if (direct_) tell("direct_align_tried", uint64_t{lane_->read(op_, Phase::read, file_, buffer.data(), 512, 512) == 512 ? 512U : 4096U});
        ends(0, Phase::read, "");
    }

    void rename() {
        if (!open_directory()) return;
        const char* from = block_name;
        const char* to = fresh_name;
        for (unsigned i = 0; i < rename_count; i++) {
            const int renamed = timed("renameat2", [&] { return lane_->rename(op_, directory_, from, directory_, to, 0); });
            if (renamed < 0) return ends(renamed, Phase::rename, "a file cannot be renamed");
            std::swap(from, to);
        }
        const int64_t there = look_up(block_name);
        const int64_t gone = look_up(fresh_name);
        if (there == -call_refused || gone == -call_refused) return ends(-call_refused, Phase::open, "");
        if (there < 0 || gone != -ENOENT) return lies(Phase::rename, "after a rename the old name is still there, or the new one is not");
        ends(0, Phase::rename, "");
    }

    // Two writers that make one name: exactly one may win. A file system that does not know the flag and says nothing would let both.
    void exclusive() {
        if (!open_directory() || !make_other()) return;
        shut(file_);
        int taken = timed("renameat2 exclusive", [&] { return lane_->rename(op_, directory_, block_name, directory_, other_name, RENAME_NOREPLACE); });
        bool by_rename = true;
        if (taken == -EINVAL || taken == -ENOSYS) {
            by_rename = false;
            taken = timed("linkat", [&] { return lane_->link(op_, directory_, block_name, directory_, other_name); });
        }
        tell("exclusive_rename", by_rename);
        if (taken == 0) return lies(Phase::rename, "an exclusive rename took a name that was taken");
        if (taken == -EEXIST) return ends(0, Phase::rename, "");
        if (!by_rename && (taken == -EPERM || taken == -EOPNOTSUPP || taken == -ENOSYS || taken == -EMLINK)) return ends(taken, Phase::rename, "neither an exclusive rename nor a link");
        ends(taken, Phase::rename, "an exclusive rename");
    }

    // A file that loses its name while a reader has it open: the reader goes on, here; what becomes of the name is told.
    void unlinked() {
        if (!open_directory() || !make_other() || !still_ours()) return;
        Buffer buffer;
        fill(buffer.data(), 0, small_bytes);
        const int64_t moved = lane_->write(op_, Phase::write, file_, buffer.data(), small_bytes, 0);
        if (moved != static_cast<int64_t>(small_bytes)) return ends(moved < 0 ? moved : -EIO, Phase::write, at("a write", 0, moved, small_bytes));
        const int removed = timed("unlinkat", [&] { return lane_->unlink(op_, directory_, other_name); });
        if (removed < 0) return ends(removed, Phase::unlink, "a file that is open cannot be unlinked");
        const int64_t back = lane_->read(op_, Phase::read, file_, buffer.data(), small_bytes, 0);
        if (back == -call_refused) return ends(back, Phase::read, "");
        tell("readable", back == static_cast<int64_t>(small_bytes));
        std::vector<std::string> names;
        const int64_t listed = list_names(directory_, names);
        if (listed < 0) return ends(listed, Phase::open, "the directory cannot be listed");
        bool renamed = false;
        for (const std::string& name : names) renamed = renamed || name.starts_with(".nfs") || name.starts_with(".fuse_hidden");
        tell("renamed_instead", renamed);
        ends(0, Phase::unlink, "");
    }

    void list() {
        if (!open_directory()) return;
        std::vector<std::string> names;
        const int64_t listed = list_names(directory_, names);
        if (listed < 0) return ends(listed, Phase::open, "the directory cannot be listed");
        for (const std::string& name : names) {
            if (name == block_name) return ends(0, Phase::open, "");
        }
        lies(Phase::open, "a file that is there is not listed");
    }

    void clean() {
        directory_ = lane_->open(op_, root_, directory_name_.c_str(), O_PATH | O_DIRECTORY);
        if (directory_ == -ENOENT) return ends(0, Phase::open, "");
        if (directory_ < 0) return ends(directory_, Phase::open, "the directory of our own cannot be opened");
        int worst = 0;
        for (const char* name : all_names) {
            const int removed = lane_->unlink_own(op_, directory_, name);
            if (removed < 0 && removed != -ENOENT) worst = removed;
        }
        shut(directory_);
        const int removed = timed("rmdir", [&] { return lane_->remove_directory(op_, root_, directory_name_.c_str()); });
        ends(removed < 0 ? removed : worst, Phase::unlink, removed < 0 || worst < 0 ? "what was made cannot be removed" : "");
    }

    // ---- their parts ----

    // As often as it takes: a call may move less, as it does before a full disk says so. Less than wanted at the end: nothing more came.
    int64_t piece(Syscall call, const char* name, std::byte* memory, size_t bytes, uint64_t offset) {
        return timed(name, [&]() -> int64_t {
            size_t done = 0;
            while (done < bytes) {
                const auto at = static_cast<int64_t>(offset + done);
                const int64_t moved = call == Syscall::pwritev ? lane_->write(op_, Phase::write, file_, memory + done, bytes - done, at)
                                                               : lane_->read(op_, Phase::read, file_, memory + done, bytes - done, at);
                if (moved == -EINVAL && direct_ && lane_->drop_direct(op_, file_) >= 0) {
                    direct_ = false;
                    continue;
                }
                if (moved < 0) return moved;
                if (moved == 0 || moved > static_cast<int64_t>(bytes - done)) return moved == 0 ? static_cast<int64_t>(done) : -EIO;
                done += static_cast<size_t>(moved);
            }
            return static_cast<int64_t>(done);
        });
    }

    // False as soon as one was.
    template <typename Each>
    static bool each_piece(Each&& each, const char* small_name, const char* large_name) {
        for (unsigned i = 0; i < small_count; i++) {
            if (!each(small_name, i * small_bytes, small_bytes)) return false;
        }
        for (unsigned i = 0; i < large_count; i++) {
            if (!each(large_name, large_from + i * large_bytes, large_bytes)) return false;
        }
        return true;
    }

    static std::string at(const char* what, uint64_t offset, int64_t moved, size_t bytes) {
        if (moved < 0) return std::string(what) + " of " + std::to_string(bytes) + " bytes at offset " + std::to_string(offset);
        return std::string(what) + " at offset " + std::to_string(offset) + " moved " + std::to_string(moved) + " of " + std::to_string(bytes) + " bytes";
    }

    // Other bytes in every file and at every offset, so that nothing passes for something else.
    void fill(std::byte* to, uint64_t offset, size_t bytes) const {
        for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
            const uint64_t word = ((offset + i) / sizeof(uint64_t) + 1) * 0x9e3779b97f4a7c15U ^ seed_;
            std::memcpy(to + i, &word, sizeof word);
        }
    }

    bool make_other() {
        file_ = timed("openat2 create", [&] { return lane_->open(op_, directory_, other_name, O_RDWR | O_CREAT | O_NONBLOCK | O_NOCTTY, 0600); });
        if (file_ < 0) ends(file_, Phase::open, "no second file can be made");
        return file_ >= 0;
    }

    // Whoever owns the root may put other directories in the place of ours, with links to other files in them: nothing is written there.
    bool still_ours() {
        FileStat stat;
        const int stated = timed("statx", [&] { return lane_->stat(op_, file_, stat); });
        if (stated < 0) ends(stated, Phase::stat, "a file that was made does not tell what it is");
        else if (!S_ISREG(stat.mode) || stat.links != 1) lies(Phase::stat, "a file that was made is another now, or has a second name");
        return stated == 0 && S_ISREG(stat.mode) && stat.links == 1;
    }

    int64_t look_up(const char* name) {
        int fd = timed("openat2 look-up", [&] { return lane_->open(op_, directory_, name, O_PATH); });
        const int64_t found = fd;
        shut(fd);
        return found;
    }

    int64_t list_names(int directory, std::vector<std::string>& names) {
        int fd = lane_->open(op_, directory, ".", O_RDONLY | O_DIRECTORY);
        if (fd < 0) return fd;
        int64_t got = 0;
        while ((got = timed("getdents64", [&] { return lane_->entries(op_, fd, lane_->tail_page(), page_bytes); })) > 0 && names.size() < names_max) {
            for (int64_t from = 0; from < got;) {
                const std::byte* entry = lane_->tail_page() + from;
                uint16_t length = 0;
                std::memcpy(&length, entry + offsetof(dirent64, d_reclen), sizeof length);
                names.emplace_back(reinterpret_cast<const char*>(entry + offsetof(dirent64, d_name)));
                if (length == 0) break;
                from += length;
            }
        }
        shut(fd);
        return got;
    }

    static constexpr size_t names_max = 1'024;  // about: of our own directory, with three, and of a root that may be anything

    LaneContext* lane_ = nullptr;
    std::string directory_name_;
    uint64_t seed_ = 0;
    int root_ = -1;
    int directory_ = -1;
    int file_ = -1;
    bool direct_ = true;
    std::map<std::string, std::vector<uint64_t>> times_;
    std::string facts_;
};

}  // namespace

std::unique_ptr<BlockWork> make_survey(std::shared_ptr<Operation> operation) { return std::make_unique<SurveyWork>(std::move(operation)); }

}  // namespace kvlane
