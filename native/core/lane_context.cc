// lane_context.cc — the watched calls and the verified roots of one lane.
#include "lane_context.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "mount.h"
#include "store_identity.h"

namespace kvlane {
namespace {

// What a call below the root answers when not the file but the mount is at fault.
bool accuses_root(int64_t result) {
    return result == -ESTALE || result == -ENOTCONN || result == -ENODEV || result == -EIO || result == -ESHUTDOWN || result == -ECONNABORTED;
}

// Not from the heap: pages there share their neighbours' pages, so that a thousand stuck lanes that use one page each hold three,
// and what a lane that leaves gives back stays with the process.
std::byte* map_pages() {
    void* const pages = ::mmap(nullptr, 2 * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    return static_cast<std::byte*>(pages);
}

int as_int(int64_t result) { return static_cast<int>(result); }

}  // namespace

Root& RootCache::of(const std::shared_ptr<Mount>& mount) {
    for (Entry& entry : entries_) {
        if (entry.mount == mount) return entry.root;
    }
    entries_.push_back({mount, Root{}});
    return entries_.back().root;
}

LaneContext::LaneContext(FileSystem& file_system, WatchWord& word, const Clock& clock)
    : file_system_(file_system), word_(word), own_roots_(std::make_unique<RootCache>()), roots_(*own_roots_), clock_(clock), pages_(map_pages()) {}

LaneContext::LaneContext(FileSystem& file_system, WatchWord& word, const Clock& clock, RootCache& roots)
    : file_system_(file_system), word_(word), roots_(roots), clock_(clock), pages_(map_pages()) {}

LaneContext::~LaneContext() { ::munmap(pages_, 2 * page_bytes); }

void LaneContext::prepare_thread() {
    // The umask belongs to the whole process until the thread leaves it; on failure files are merely stricter.
    if (::unshare(CLONE_FS) == 0) ::umask(0);
}

bool LaneContext::still_wanted(const Operation& operation) const { return operation.may_start_call(now_us()); }

template <typename Call>
int64_t LaneContext::watched(Operation& operation, Phase phase, Syscall name, uint64_t begun_us, Call&& call) {
    word_.enter(phase, name, begun_us);
    const int64_t result = call();
    word_.leave();
    operation.result.kernel_us += now_us() - begun_us;
    return result;
}

template <typename Call>
int64_t LaneContext::guarded(Operation& operation, Phase phase, Syscall name, Call&& call) {
    const uint64_t begun_us = now_us();
    if (!operation.may_start_call(begun_us)) return -call_refused;
    const int64_t result = watched(operation, phase, name, begun_us, call);
    suspect_root(operation, result);
    return result;
}

void LaneContext::suspect_root(Operation& operation, int64_t error) {
    if (accuses_root(error) && operation.mount != nullptr) roots_.of(operation.mount).suspect = true;
}

int LaneContext::open_root_by_path(Operation& operation, const char* path) {
    return opened(as_int(guarded(operation, Phase::open, Syscall::openat, [&] { return file_system_.open_root(path); })));
}

int LaneContext::open(Operation& operation, int directory, const char* name, int flags, uint32_t mode, FileSystem::Lookup lookup) {
    return opened(as_int(guarded(operation, Phase::open, Syscall::openat2,
                                 [&] { return file_system_.open_beneath(directory, name, flags, mode, lookup); })));
}

int LaneContext::stat(Operation& operation, int fd, FileStat& out, FileSystem::Freshness freshness) {
    return as_int(guarded(operation, Phase::stat, Syscall::statx, [&] { return file_system_.stat(fd, freshness, out); }));
}

int LaneContext::stat_name(Operation& operation, int directory, const char* name, FileStat& out) {
    return as_int(guarded(operation, Phase::stat, Syscall::statx, [&] { return file_system_.stat_name(directory, name, out); }));
}

int LaneContext::fs_type(Operation& operation, int fd, uint64_t& magic) {
    return as_int(guarded(operation, Phase::stat, Syscall::fstatfs, [&] { return file_system_.fs_type(fd, magic); }));
}

int64_t LaneContext::read(Operation& operation, Phase phase, int fd, void* to, size_t bytes, int64_t offset) {
    const iovec part = {to, bytes};
    const int64_t moved = guarded(operation, phase, Syscall::preadv, [&] { return file_system_.preadv(fd, &part, 1, offset); });
    return moved > static_cast<int64_t>(bytes) ? -EIO : moved;  // believed, it would have the caller look behind its buffer
}

int64_t LaneContext::write(Operation& operation, Phase phase, int fd, const void* from, size_t bytes, int64_t offset) {
    const iovec part = {const_cast<void*>(from), bytes};
    return guarded(operation, phase, Syscall::pwritev, [&] { return file_system_.pwritev(fd, &part, 1, offset); });
}

int LaneContext::fsync(Operation& operation, int fd) {
    return as_int(guarded(operation, Phase::fsync, Syscall::fsync, [&] { return file_system_.fsync(fd); }));
}

int LaneContext::rename(Operation& operation, int from_directory, const char* from, int to_directory, const char* to, uint32_t flags) {
    return as_int(guarded(operation, Phase::rename, Syscall::renameat2,
                          [&] { return file_system_.rename(from_directory, from, to_directory, to, flags); }));
}

int LaneContext::link(Operation& operation, int from_directory, const char* from, int to_directory, const char* to) {
    return as_int(guarded(operation, Phase::rename, Syscall::linkat,
                          [&] { return file_system_.link(from_directory, from, to_directory, to); }));
}

int LaneContext::unlink(Operation& operation, int directory, const char* name) {
    return as_int(guarded(operation, Phase::unlink, Syscall::unlinkat, [&] { return file_system_.unlink(directory, name); }));
}

int LaneContext::make_directory(Operation& operation, int directory, const char* name, uint32_t mode) {
    return as_int(guarded(operation, Phase::open, Syscall::mkdirat, [&] { return file_system_.make_directory(directory, name, mode); }));
}

int LaneContext::remove_directory(Operation& operation, int directory, const char* name) {
    return as_int(guarded(operation, Phase::unlink, Syscall::unlinkat, [&] { return file_system_.remove_directory(directory, name); }));
}

int64_t LaneContext::entries(Operation& operation, int fd, void* to, size_t bytes) {
    return guarded(operation, Phase::open, Syscall::getdents64, [&] { return file_system_.entries(fd, to, bytes); });
}

int LaneContext::seek(Operation& operation, int fd, uint64_t to) {
    return as_int(guarded(operation, Phase::open, Syscall::lseek, [&] { return file_system_.seek(fd, to); }));
}

int LaneContext::touch(Operation& operation, int fd) {
    return as_int(guarded(operation, Phase::stat, Syscall::utimensat, [&] { return file_system_.touch(fd); }));
}

int LaneContext::room(Operation& operation, int fd, FileSystemRoom& out) {
    return as_int(guarded(operation, Phase::stat, Syscall::fstatfs, [&] { return file_system_.room(fd, out); }));
}

int LaneContext::drop_direct(Operation& operation, int fd) {
    return as_int(watched(operation, Phase::open, Syscall::fcntl, now_us(), [&] { return file_system_.drop_direct(fd); }));
}

int LaneContext::unlink_own(Operation& operation, int directory, const char* name) {
    return as_int(watched(operation, Phase::unlink, Syscall::unlinkat, now_us(), [&] { return file_system_.unlink(directory, name); }));
}

int LaneContext::rename_back(Operation& operation, int from_directory, const char* from, int to_directory, const char* to, uint32_t flags) {
    return as_int(watched(operation, Phase::rename, Syscall::renameat2, now_us(),
                          [&] { return file_system_.rename(from_directory, from, to_directory, to, flags); }));
}

int LaneContext::link_back(Operation& operation, int from_directory, const char* from, int to_directory, const char* to) {
    const int linked = as_int(watched(operation, Phase::rename, Syscall::linkat, now_us(),
                                      [&] { return file_system_.link(from_directory, from, to_directory, to); }));
    return linked < 0 ? linked : unlink_own(operation, from_directory, from);
}

int LaneContext::close(Operation& operation, int fd) {
    closed(fd);  // also when it fails: the number is free then, too
    return as_int(watched(operation, Phase::close, Syscall::close, now_us(), [&] { return file_system_.close(fd); }));
}

int LaneContext::opened(int fd) {
    if (fd >= 0 && opened_count_ < opened_max) opened_[opened_count_++] = fd;
    return fd;
}

void LaneContext::closed(int fd) {
    for (size_t i = 0; i < opened_count_; i++) {
        if (opened_[i] != fd) continue;
        opened_[i] = opened_[--opened_count_];
        return;
    }
}

void LaneContext::close_leftovers(Operation& operation) {
    while (opened_count_ > 0) close(operation, opened_[opened_count_ - 1]);
}

int64_t LaneContext::transfer(Operation& operation, const Transfer& t) {
    switch (t.what) {
        case Transfer::What::read:
            return guarded(operation, t.phase(), Syscall::preadv, [&] { return file_system_.preadv(t.fd, t.parts, t.part_count, t.offset); });
        case Transfer::What::write:
            return guarded(operation, t.phase(), Syscall::pwritev, [&] { return file_system_.pwritev(t.fd, t.parts, t.part_count, t.offset); });
        case Transfer::What::fsync: return fsync(operation, t.fd);
    }
    return -EINVAL;
}

Status LaneContext::open_root(Operation& operation, Root*& out, bool afresh) {
    Result& result = operation.result;
    Root& root = roots_.of(operation.mount);
    const uint64_t identity = operation.mount->identity();
    const auto refuse = [&](Status status, int error, Phase phase, std::string text) {
        result.status = status;
        result.error = error < 0 && error != -call_refused ? -error : 0;
        result.phase = phase;
        result.text = std::move(text);
        return status;
    };
    if (!afresh && root.fd >= 0 && !root.suspect && root.generation >= operation.root_generation && root.identity == identity) {
        out = &root;
        return Status::ok;
    }
    const std::optional<std::string> expected = operation.mount->store_id();
    // Only a probe goes on before the store was identified.
    if (!expected && !afresh) return refuse(Status::wrong_store, 0, Phase::open, "the store of this mount has not been identified yet");

    const int fd = open_root_by_path(operation, operation.mount->root.c_str());
    if (fd < 0) {
        if (fd == -call_refused) return refuse(Status::expired, fd, Phase::open, "");
        const bool gone = fd == -ENOENT || fd == -ENOTDIR;
        return refuse(gone ? Status::wrong_store : Status::io_error, fd, Phase::open,
                      gone ? "there is no directory " + operation.mount->root : "the root directory cannot be opened");
    }
    const IdentityReading found = read_identity(*this, operation, fd);
    const bool same = found.verdict == IdentityVerdict::found && (!expected || *expected == found.store_id);
    if (!same) {
        // Also the old descriptor goes: whatever it leads to, the path no longer does.
        close(operation, fd);
        if (root.fd >= 0 && found.verdict != IdentityVerdict::failed) {
            close(operation, root.fd);
            root = Root{};
        }
        switch (found.verdict) {
            case IdentityVerdict::found:
                return refuse(Status::wrong_store, 0, Phase::open, "store " + found.store_id + " is there, " + *expected + " was expected");
            case IdentityVerdict::absent:
                return refuse(Status::wrong_store, -ENOENT, Phase::open, "no store is there (kvlane.json is missing): is the file system mounted?");
            case IdentityVerdict::unreadable_text:
                return refuse(Status::wrong_store, 0, found.phase, "kvlane.json there does not describe a store of format 1");
            case IdentityVerdict::failed: break;
        }
        if (found.error == -call_refused) return refuse(Status::expired, found.error, found.phase, "");
        return refuse(Status::io_error, found.error, found.phase, "kvlane.json cannot be read");
    }
    if (root.fd >= 0) close(operation, root.fd);
    root = Root{};
    root.generation = operation.root_generation;
    root.identity = expected ? identity : 0;
    root.fd = fd;
    closed(fd);  // the cache's from here on
    out = &root;
    return Status::ok;
}

void LaneContext::close_roots() {
    for (RootCache::Entry& entry : roots_.entries_) {
        if (entry.root.fd >= 0) {
            word_.enter(Phase::close, Syscall::close, now_us());
            file_system_.close(entry.root.fd);
            word_.leave();
        }
        entry.root = Root{};
    }
}

}  // namespace kvlane
