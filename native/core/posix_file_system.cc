// posix_file_system.cc — FileSystem by raw system calls.
//
// Raw, because a lane must not depend on what the C library has on top (old statx emulations, errno in
// thread-local storage of a thread that never ends), and because openat2 has no wrapper.
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "file_system.h"

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20
#endif
#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x00001000U
#endif
#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x00002000U
#endif

namespace kvlane {
namespace {

template <typename... Arguments>
int64_t call(long number, Arguments... arguments) {
    for (;;) {
        const long result = ::syscall(number, arguments...);
        if (result >= 0) return result;
        if (errno != EINTR) return -errno;
    }
}

// struct statx of Linux 6.1, whatever the headers at build time know: the fields behind stx_mnt_id.
struct StatxWithDirectAlign {
    struct statx base;
    uint32_t direct_memory_align() const { return at(152); }
    uint32_t direct_offset_align() const { return at(156); }

  private:
    uint32_t at(size_t offset) const {
        uint32_t value = 0;
        __builtin_memcpy(&value, reinterpret_cast<const char*>(&base) + offset, sizeof value);
        return value;
    }
};
static_assert(sizeof(struct statx) == 256);

class PosixFileSystem final : public FileSystem {
  public:
    int open_root(const char* path) override {
        // O_PATH|O_DIRECTORY still walks the path and so may stall; openat2 would add nothing here.
        return static_cast<int>(call(SYS_openat, AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
    }

    int open_beneath(int directory, const char* name, int flags, uint32_t mode, Lookup lookup) override {
        open_how how = {};
        how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
        how.mode = mode;
        how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
        if (lookup == Lookup::cached_only) how.resolve |= RESOLVE_CACHED;
        for (int attempt = 0;; attempt++) {
            const int64_t fd = call(SYS_openat2, directory, name, &how, sizeof how);
            // A rename anywhere on the machine makes a lookup beneath unsure of itself: EAGAIN, try again.
            if (fd != -EAGAIN || lookup == Lookup::cached_only || attempt == retries_max) return static_cast<int>(fd);
        }
    }

    int stat(int fd, Freshness freshness, FileStat& out) override {
        int flags = AT_EMPTY_PATH;
        if (freshness == Freshness::cached_is_fine) flags |= AT_STATX_DONT_SYNC;
        if (freshness == Freshness::forced) flags |= AT_STATX_FORCE_SYNC;
        return statx(fd, "", flags, out);
    }
    int stat_name(int directory, const char* name, FileStat& out) override { return statx(directory, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, out); }

    static int statx(int fd, const char* name, int flags, FileStat& out) {
        StatxWithDirectAlign found = {};
        const int64_t result = call(SYS_statx, fd, name, flags, STATX_BASIC_STATS | STATX_DIOALIGN, &found);
        if (result < 0) return static_cast<int>(result);
        out.mode = found.base.stx_mode;
        out.size = found.base.stx_size;
        out.allocated_bytes = found.base.stx_blocks * 512;
        out.inode = found.base.stx_ino;
        out.modified_ns = static_cast<uint64_t>(found.base.stx_mtime.tv_sec) * 1'000'000'000 + found.base.stx_mtime.tv_nsec;
        out.changed_ns = static_cast<uint64_t>(found.base.stx_ctime.tv_sec) * 1'000'000'000 + found.base.stx_ctime.tv_nsec;
        out.owner = found.base.stx_uid;
        out.group = found.base.stx_gid;
        out.links = found.base.stx_nlink;
        out.device_major = found.base.stx_dev_major;
        out.device_minor = found.base.stx_dev_minor;
        out.direct_align = FileStat::unknown;
        out.mount_id = (found.base.stx_mask & STATX_MNT_ID) != 0 ? found.base.stx_mnt_id : 0;
        if (found.base.stx_mask & STATX_DIOALIGN) {
            const uint32_t memory = found.direct_memory_align();
            const uint32_t offset = found.direct_offset_align();
            out.direct_align = memory == 0 || offset == 0 ? 0 : memory > offset ? memory : offset;
        }
        return 0;
    }

    int fs_type(int fd, uint64_t& magic) override {
        struct statfs found = {};
        const int64_t result = call(SYS_fstatfs, fd, &found);
        if (result == 0) magic = static_cast<uint64_t>(found.f_type) & 0xffffffffU;
        return static_cast<int>(result);
    }


    int64_t preadv(int fd, const iovec* parts, int count, int64_t offset) override {
        return call(SYS_preadv, fd, parts, static_cast<long>(count), offset, 0L);
    }
    int64_t pwritev(int fd, const iovec* parts, int count, int64_t offset) override {
        return call(SYS_pwritev, fd, parts, static_cast<long>(count), offset, 0L);
    }
    int fsync(int fd) override { return static_cast<int>(call(SYS_fsync, fd)); }

    int rename(int from_directory, const char* from, int to_directory, const char* to, uint32_t flags) override {
        return static_cast<int>(call(SYS_renameat2, from_directory, from, to_directory, to, flags));
    }
    int link(int from_directory, const char* from, int to_directory, const char* to) override {
        return static_cast<int>(call(SYS_linkat, from_directory, from, to_directory, to, 0));
    }
    int unlink(int directory, const char* name) override { return static_cast<int>(call(SYS_unlinkat, directory, name, 0)); }
    int make_directory(int directory, const char* name, uint32_t mode) override {
        return static_cast<int>(call(SYS_mkdirat, directory, name, mode));
    }

    int remove_directory(int directory, const char* name) override {
        return static_cast<int>(call(SYS_unlinkat, directory, name, AT_REMOVEDIR));
    }
    int64_t entries(int fd, void* to, size_t bytes) override { return call(SYS_getdents64, fd, to, bytes); }
    int64_t seek(int fd, uint64_t to) override {
        const int64_t result = call(SYS_lseek, fd, static_cast<long>(to), SEEK_SET);
        return result < 0 ? result : 0;
    }
    // Both times: that is what whoever may write to the file may do; one alone only its owner may.
    int touch(int fd) override { return static_cast<int>(call(SYS_utimensat, fd, nullptr, nullptr, 0)); }

    int drop_direct(int fd) override {
        const int64_t flags = call(SYS_fcntl, fd, F_GETFL, 0);
        if (flags < 0) return static_cast<int>(flags);
        return static_cast<int>(call(SYS_fcntl, fd, F_SETFL, static_cast<int>(flags) & ~O_DIRECT));
    }

    int close(int fd) override {
        // Never again after EINTR: Linux has released the descriptor already, and another call may own the number.
        return ::syscall(SYS_close, fd) == 0 ? 0 : -errno;
    }

    int room(int fd, FileSystemRoom& out) override {
        struct statfs found = {};
        const int64_t result = call(SYS_fstatfs, fd, &found);
        if (result < 0) return static_cast<int>(result);
        // f_frsize is the unit; file systems that leave it out count in f_bsize.
        out = {static_cast<uint64_t>(found.f_type) & 0xffffffffU, static_cast<uint64_t>(found.f_frsize > 0 ? found.f_frsize : found.f_bsize),
               found.f_blocks, found.f_bavail, found.f_files, found.f_ffree};
        return 0;
    }

  private:
    static constexpr int retries_max = 16;  // lookups raced by renames; each try is one call
};

}  // namespace

FileSystem& posix_file_system() {
    static PosixFileSystem* const it = new PosixFileSystem;  // leaked: lanes outlive static destructors
    return *it;
}

// There is no second way: one that walks the names itself would be raced into a symbolic link.
std::string openat2_refusal() {
    FileSystem& files = posix_file_system();
    const int root = files.open_root("/");
    if (root < 0) return "";  // says nothing about openat2
    const int opened = files.open_beneath(root, ".", O_PATH | O_DIRECTORY, 0, FileSystem::Lookup::full);
    files.close(root);
    if (opened >= 0) files.close(opened);
    if (opened != -ENOSYS && opened != -EPERM) return "";
    return std::string("kvlane needs openat2 (Linux 5.6; container seccomp profile of Docker 20.10 or later); here it answers ") + (opened == -EPERM ? "EPERM: a seccomp profile refuses it" : "ENOSYS");
}

}  // namespace kvlane
