#include "arena.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace kvlane {

namespace {

// From Linux 6.3; older headers and kernels do without.
constexpr unsigned memfd_noexec_seal = 0x0008U;
constexpr int seals_wanted = F_SEAL_SHRINK | F_SEAL_GROW;

std::string reason(int error) { return std::string(strerrordesc_np(error)) + " (" + strerrorname_np(error) + ")"; }

std::string in_bytes(uint64_t bytes) { return std::to_string(bytes) + " bytes"; }

// Maps what has proved to be a memfd.
std::variant<Arena, ArenaError> map_memfd(int fd) {
    struct stat status {};
    struct statfs file_system {};
    if (fstat(fd, &status) != 0 || fstatfs(fd, &file_system) != 0) {
        return ArenaError{"ARENA_UNREADABLE", "arena descriptor " + std::to_string(fd) + " cannot be examined: " + reason(errno)};
    }
    Arena arena;
    arena.fd = fd;
    const bool hugetlb = static_cast<uint64_t>(file_system.f_type) == HUGETLBFS_MAGIC;
    arena.backing = hugetlb ? Arena::Backing::hugetlb : Arena::Backing::shmem;
    arena.page_bytes = hugetlb ? static_cast<uint64_t>(file_system.f_bsize) : static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    arena.region.bytes = static_cast<uint64_t>(status.st_size);
    if (arena.region.bytes == 0 || arena.region.bytes % arena.page_bytes != 0) {
        return ArenaError{"ARENA_SIZE", "arena of " + in_bytes(arena.region.bytes) + ": the size must be a multiple of its page size, " +
                                            in_bytes(arena.page_bytes) + ", and not zero (ftruncate before sealing)"};
    }
    void* memory = mmap(nullptr, arena.region.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        const int error = errno;
        std::string hint;
        if (error == EPERM || error == EACCES) hint = "; it must be writable: no F_SEAL_WRITE, opened for reading and writing";
        if (error == ENOMEM && hugetlb) hint = "; not enough huge pages are free (vm.nr_hugepages)";
        return ArenaError{"ARENA_MAP", "arena of " + in_bytes(arena.region.bytes) + " cannot be mapped: " + reason(error) + hint};
    }
    arena.region.memory = static_cast<std::byte*>(memory);
    return arena;
}

int make_memfd(unsigned flags) {
    const int fd = memfd_create("kvlane-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | memfd_noexec_seal | flags);
    if (fd >= 0 || errno != EINVAL) return fd;
    return memfd_create("kvlane-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
}

std::variant<Arena, ArenaError> make_sealed(uint64_t bytes, unsigned flags) {
    const int fd = make_memfd(flags);
    if (fd < 0) return ArenaError{"ARENA_CREATE", "an arena of " + in_bytes(bytes) + " cannot be made: memfd_create: " + reason(errno)};
    if (ftruncate(fd, static_cast<off_t>(bytes)) != 0 || fcntl(fd, F_ADD_SEALS, seals_wanted | F_SEAL_SEAL) != 0) {
        const int error = errno;
        close(fd);
        return ArenaError{"ARENA_CREATE", "an arena of " + in_bytes(bytes) + " cannot be made: " + reason(error)};
    }
    auto arena = map_memfd(fd);
    if (std::holds_alternative<ArenaError>(arena)) close(fd);
    return arena;
}

}  // namespace

std::variant<Arena, ArenaError> adopt_arena(int fd) {
    // Seals first: only a memfd has them, and asking makes no call on any file system. An fstat of a
    // file on a stuck mount would hang the caller.
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0) {
        const int error = errno;
        const std::string which = "arena descriptor " + std::to_string(fd);
        if (error == EBADF) {
            return ArenaError{"ARENA_NOT_OPEN", which + " is not open in this process; pass a memfd that the child inherits (Python: pass_fds)"};
        }
        return ArenaError{"ARENA_NOT_MEMFD", which + " is not a memfd; make one with memfd_create(MFD_ALLOW_SEALING)"};
    }
    if ((seals & seals_wanted) != seals_wanted) {
        return ArenaError{"ARENA_NOT_SEALED",
                          "arena descriptor " + std::to_string(fd) + " lacks the seal " + ((seals & F_SEAL_SHRINK) == 0 ? "F_SEAL_SHRINK" : "F_SEAL_GROW") +
                              "; add F_SEAL_SHRINK | F_SEAL_GROW with fcntl(F_ADD_SEALS), so that its size cannot change under a running call"};
    }
    return map_memfd(fd);
}

std::variant<Arena, ArenaError> create_arena(uint64_t bytes) {
    if (bytes == 0 || bytes % static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) != 0) {
        return ArenaError{"ARENA_SIZE", "an arena must be a multiple of the page size, " + in_bytes(static_cast<uint64_t>(sysconf(_SC_PAGESIZE))) + ", got " + in_bytes(bytes)};
    }
    auto huge = make_sealed(bytes, MFD_HUGETLB);  // of the machine's default size; fails where none are set aside
    if (std::holds_alternative<Arena>(huge)) return huge;
    return make_sealed(bytes, 0);
}

std::variant<Region, ArenaError> create_staging(uint64_t bytes) {
    if (bytes == 0 || bytes % region_align_bytes != 0) {
        return ArenaError{"ARENA_SIZE", "staging memory must be a multiple of " + in_bytes(region_align_bytes) + ", got " + in_bytes(bytes)};
    }
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return ArenaError{"ARENA_MAP", "staging memory of " + in_bytes(bytes) + " cannot be mapped: " + reason(errno)};
    return Region{static_cast<std::byte*>(memory), bytes};
}

}  // namespace kvlane
