// file_system.h — every call on a mount that can stall, and nothing else.
//
// All of them may never return: only a lane calls them, through LaneContext, which publishes what it
// is inside. Each returns a value ≥ 0 or a negative errno; none touches the C library's errno or
// retries by itself, except EINTR (no data has moved then). Tests put a failing, short or blocking
// one in its place.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <string>

namespace kvlane {

struct FileStat {
    uint32_t mode = 0;  // type and permissions
    uint64_t size = 0;
    uint64_t allocated_bytes = 0;  // on the device, as the file system counts it
    uint64_t inode = 0;
    uint64_t modified_ns = 0;  // of the content; a rename leaves it
    uint64_t changed_ns = 0;   // of anything, the name too
    uint32_t owner = 0;
    uint32_t group = 0;
    uint32_t links = 0;
    uint32_t device_major = 0;
    uint32_t device_minor = 0;
    // O_DIRECT as the file system states it (Linux 6.1): 0 says not at all, unknown says it did not say.
    static constexpr uint32_t unknown = ~0U;
    uint32_t direct_align = unknown;  // file offset and length, bytes
    uint64_t mount_id = 0;  // as in /proc/self/mountinfo; 0: it did not say (before Linux 5.8)
};

// What statfs says. Inodes are 0 where a file system has no fixed number of them.
struct FileSystemRoom {
    uint64_t magic = 0;
    uint64_t block_bytes = 0;
    uint64_t blocks = 0;
    uint64_t blocks_free = 0;  // for whoever is not root
    uint64_t inodes = 0;
    uint64_t inodes_free = 0;
};

class FileSystem {
  public:
    // How a name below the root is found; never through a symbolic link, never out of the root.
    enum class Lookup : uint8_t {
        full,
        cached_only,  // EAGAIN where the answer is not in the kernel's caches (RESOLVE_CACHED)
    };
    // How fresh the attributes must be.
    enum class Freshness : uint8_t { as_usual, cached_is_fine, forced };

    virtual ~FileSystem() = default;
    // The root by its path, symbolic links allowed: the operator wrote it. O_PATH: holding it makes no close-time call.
    virtual int open_root(const char* path) = 0;
    virtual int open_beneath(int directory, const char* name, int flags, uint32_t mode, Lookup lookup) = 0;
    virtual int stat(int fd, Freshness freshness, FileStat& out) = 0;
    // Of a name in the directory, never of what a link leads to.
    virtual int stat_name(int directory, const char* name, FileStat& out) = 0;
    virtual int fs_type(int fd, uint64_t& magic) = 0;
    virtual int64_t preadv(int fd, const iovec* parts, int count, int64_t offset) = 0;
    virtual int64_t pwritev(int fd, const iovec* parts, int count, int64_t offset) = 0;
    virtual int fsync(int fd) = 0;
    virtual int rename(int from_directory, const char* from, int to_directory, const char* to, uint32_t flags) = 0;
    virtual int link(int from_directory, const char* from, int to_directory, const char* to) = 0;
    virtual int unlink(int directory, const char* name) = 0;
    virtual int make_directory(int directory, const char* name, uint32_t mode) = 0;  // AT_FDCWD: name is a path
    virtual int remove_directory(int directory, const char* name) = 0;
    virtual int64_t entries(int fd, void* to, size_t bytes) = 0;  // getdents64
    virtual int64_t seek(int fd, uint64_t to) = 0;                // in a directory: to where an entry said that the next one is
    virtual int touch(int fd) = 0;                                // used and written now, by the file system's clock
    virtual int drop_direct(int fd) = 0;  // clear O_DIRECT on an open file
    virtual int close(int fd) = 0;
    virtual int room(int fd, FileSystemRoom& out) = 0;
};

// The kernel's own. Stateless; one object serves every lane.
FileSystem& posix_file_system();

// Empty, or why this kernel, or a filter in front of it, has no way to open a name beneath a
// directory and never through a symbolic link (openat2). Asked of "/", so before any mount is touched.
std::string openat2_refusal();

}  // namespace kvlane
