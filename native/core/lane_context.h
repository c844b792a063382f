// lane_context.h — what one lane owns for its calls: watch word, root directories, aligned pages.
//
// Every call on a mount goes through here. It publishes phase, system call and start time while it is
// inside; it refuses to start a call for an operation that was abandoned or is past its deadline
// (closing, and removing an own temporary, are always allowed); it adds up the time spent.
//
// A lane that runs one operation at a time has one LaneContext. A lane that has several in the kernel
// has one per depth slot, each with its own word and pages, sharing one RootCache: pages belong to the
// kernel until their transfer is back. All of it is used by the lane's thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "block_work.h"
#include "clock.h"
#include "file_system.h"
#include "operation.h"
#include "watch_word.h"

namespace kvlane {

// Returned (negated) by a call that was not started because nobody waits for it any more.
inline constexpr int call_refused = 4096;  // above every errno

inline constexpr size_t page_bytes = 4096;  // header page, tail page, padding: also where memory pages are larger

// One mount's root directory as this lane opened it.
struct Root {
    int fd = -1;
    uint32_t generation = 0;       // the operation's root_generation under which the store id was compared
    bool suspect = false;          // a call on it said that the mount is gone or ill: open it by path again
    uint64_t identity = 0;         // the mount's, when the store id read through `fd` was found to be that one; 0: it was not compared
    bool direct_refused = false;   // the file system does not take O_DIRECT
    bool noatime_refused = false;  // the files belong to somebody else
};

struct Mount;

class RootCache {
  public:
    Root& of(const std::shared_ptr<Mount>& mount);  // stays where it is

  private:
    friend class LaneContext;
    struct Entry {
        std::shared_ptr<Mount> mount;  // held: a new mount must not be taken for an old one at the same address
        Root root;
    };
    std::list<Entry> entries_;
};

class LaneContext {
  public:
    LaneContext(FileSystem& file_system, WatchWord& word, const Clock& clock);  // with a root cache of its own
    LaneContext(FileSystem& file_system, WatchWord& word, const Clock& clock, RootCache& roots);  // one of several seats
    LaneContext(const LaneContext&) = delete;
    LaneContext& operator=(const LaneContext&) = delete;
    ~LaneContext();  // frees pages, makes no call; a lane that ends calls close_roots() first, if it still can

    // Once, first thing on a lane's own thread: an umask of its own, so that --file-mode is what files get.
    static void prepare_thread();

    // False once the operation was abandoned or its deadline passed: then no further call is started for it.
    bool still_wanted(const Operation& operation) const;

    // The mount's root, opened and compared with the expected store id. Status::ok, or why not (with result filled).
    // `afresh`: by path even when a verified one is at hand (probe). Do not keep the descriptor over a
    // transfer: another seat of this lane may open the root again meanwhile.
    Status open_root(Operation& operation, Root*& out, bool afresh = false);
    Root& root_of(const Operation& operation) { return roots_.of(operation.mount); }
    void suspect_root(Operation& operation, int64_t error);  // if the error accuses the mount, the next operation opens it by path again
    void close_roots();

    // The calls. Negative errno, or -call_refused.
    int open_root_by_path(Operation& operation, const char* path);
    int open(Operation& operation, int directory, const char* name, int flags, uint32_t mode = 0,
             FileSystem::Lookup lookup = FileSystem::Lookup::full);
    int stat(Operation& operation, int fd, FileStat& out,
             FileSystem::Freshness freshness = FileSystem::Freshness::as_usual);
    int stat_name(Operation& operation, int directory, const char* name, FileStat& out);
    int fs_type(Operation& operation, int fd, uint64_t& magic);
    int64_t read(Operation& operation, Phase phase, int fd, void* to, size_t bytes, int64_t offset);
    int64_t write(Operation& operation, Phase phase, int fd, const void* from, size_t bytes, int64_t offset);
    int fsync(Operation& operation, int fd);
    int rename(Operation& operation, int from_directory, const char* from, int to_directory, const char* to, uint32_t flags);
    int link(Operation& operation, int from_directory, const char* from, int to_directory, const char* to);
    int unlink(Operation& operation, int directory, const char* name);
    int make_directory(Operation& operation, int directory, const char* name, uint32_t mode);
    int remove_directory(Operation& operation, int directory, const char* name);
    int64_t entries(Operation& operation, int fd, void* to, size_t bytes);  // linux_dirent64
    int seek(Operation& operation, int fd, uint64_t to);
    int touch(Operation& operation, int fd);
    int room(Operation& operation, int fd, FileSystemRoom& out);
    // Allowed for every operation, in any state: they only undo what it did itself.
    int drop_direct(Operation& operation, int fd);
    int unlink_own(Operation& operation, int directory, const char* name);
    int rename_back(Operation& operation, int from_directory, const char* from, int to_directory, const char* to, uint32_t flags);
    int link_back(Operation& operation, int from_directory, const char* from, int to_directory, const char* to);  // and unlink `from`
    int close(Operation& operation, int fd);

    // After the work is gone, on every path: what it opened and did not close, because an allocation
    // failed half-way, is closed here. A lane has its own descriptor table, so nobody else would.
    void close_leftovers(Operation& operation);

    // What BlockWork handed out, done here and now. For the `threads` engine, and for what aio cannot submit.
    int64_t transfer(Operation& operation, const Transfer& transfer);

    std::byte* header_page() { return pages_; }
    std::byte* tail_page() { return pages_ + page_bytes; }
    uint64_t now_us() const { return clock_.now_us(); }
    FileSystem& file_system() { return file_system_; }
    WatchWord& word() { return word_; }

  private:
    template <typename Call>
    int64_t watched(Operation& operation, Phase phase, Syscall name, uint64_t begun_us, Call&& call);
    template <typename Call>
    int64_t guarded(Operation& operation, Phase phase, Syscall name, Call&& call);  // watched, if still wanted

    FileSystem& file_system_;
    WatchWord& word_;
    std::unique_ptr<RootCache> own_roots_;
    RootCache& roots_;
    const Clock& clock_;
    int opened(int fd);
    void closed(int fd);

    std::byte* const pages_;  // memory once they are touched
    // Descriptors of the operation at hand; roots in the cache are not among them. The most any kind
    // holds at once is five (store: directory, recycle/, file, the directory again for fsync, and a look).
    static constexpr size_t opened_max = 16;
    int opened_[opened_max];
    size_t opened_count_ = 0;
};

}  // namespace kvlane
