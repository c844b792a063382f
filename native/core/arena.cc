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

#include <algorithm>
#include <optional>

#include "clock.h"

namespace kvlane {

namespace {

// From Linux 6.3; older headers and kernels do without.
constexpr unsigned memfd_noexec_seal = 0x0008U;
constexpr uint64_t bring_us_max = 2'000'000;  // a fragmented machine searches long for each huge page; a start must not
constexpr uint64_t hugetlb_page_bytes_min = 1 << 20;  // below (arm64 has 64 KiB) transparent ones are better
constexpr uint64_t hugetlb_page_bytes_usual = 2 << 20;
constexpr int seals_wanted = F_SEAL_SHRINK | F_SEAL_GROW;

std::string reason(int error) { return std::string(strerrordesc_np(error)) + " (" + strerrorname_np(error) + ")"; }

uint64_t now_us() { return MonotonicClock().now_us(); }

std::string in_bytes(uint64_t bytes) { return std::to_string(bytes) + " bytes"; }

// Where a transparent huge page can start: the kernel aligns shared memory so only where its policy is to have any.
void* map_aligned(uint64_t bytes, uint64_t align, int fd) {
    auto* const room = static_cast<std::byte*>(mmap(nullptr, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (room == MAP_FAILED) return MAP_FAILED;
    std::byte* const begin = room + (align - reinterpret_cast<uintptr_t>(room) % align) % align;
    void* const memory = mmap(begin, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    const int error = errno;
    if (begin > room) munmap(room, static_cast<size_t>(begin - room));
    munmap(begin + bytes, static_cast<size_t>(room + align - begin));
    if (memory == MAP_FAILED) {
        munmap(begin, bytes);
        errno = error;
    }
    return memory;
}

// Asks for transparent huge pages and has the kernel bring them: it does so only where memory is touched.
// By reading: somebody else may be writing to what he shares with us. False: the time was over before all was touched.
bool bring_huge_pages(const Region& region, uint64_t huge) {
    if (madvise(region.memory, region.bytes, MADV_HUGEPAGE) != 0) return true;
    const uint64_t until_us = now_us() + bring_us_max;
    for (uint64_t at = 0; at < region.bytes; at += huge) {
        static_cast<void>(*static_cast<volatile const std::byte*>(region.memory + at));
        if (now_us() > until_us) return at + huge >= region.bytes;
    }
    return true;
}

ArenaError hugetlb_error(uint64_t bytes, uint64_t page_bytes, int error) {
    const uint64_t needed = round_up(bytes, page_bytes) / page_bytes;
    uint64_t available = 0;
    for (const HugetlbPool& pool : hugetlb_pools()) {
        if (pool.page_bytes == page_bytes) available = pool.available;
    }
    return ArenaError{"ARENA_HUGE_PAGES", "arena of " + in_bytes(bytes) + ": it takes " + std::to_string(needed) + " huge pages of " + in_bytes(page_bytes) +
                                              ", and " + std::to_string(available) + " are available: " + reason(error) +
                                              (available < needed ? "" : "; a control group (hugetlb.*.max) or a cpuset may keep them from this process")};
}

// Page by page, because a signal ends the call half-way. 0 or an errno.
int take_pages(int fd, uint64_t bytes, uint64_t page_bytes) {
    for (uint64_t at = 0; at < bytes; at += page_bytes) {
        while (fallocate(fd, 0, static_cast<off_t>(at), static_cast<off_t>(page_bytes)) != 0) {
            if (errno != EINTR) return errno;
        }
    }
    return 0;
}

// Maps what has proved to be a memfd.
std::variant<Arena, ArenaError> map_memfd(int fd, HugePages wanted) {
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
    const uint64_t bytes = static_cast<uint64_t>(status.st_size);
    if (bytes == 0 || bytes % arena.page_bytes != 0) {
        return ArenaError{"ARENA_SIZE", "arena of " + in_bytes(bytes) + ": the size must be a multiple of its page size, " +
                                            in_bytes(arena.page_bytes) + ", and not zero (ftruncate before sealing)"};
    }
    const uint64_t thp = hugetlb || wanted == HugePages::off || !shared_thp_allowed() ? 0 : thp_bytes();
    const bool try_thp = thp > 0 && bytes >= thp;
    void* const memory = try_thp ? map_aligned(bytes, thp, fd) : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        const int error = errno;
        if (error == ENOMEM && hugetlb) return hugetlb_error(bytes, arena.page_bytes, error);
        const bool refused = error == EPERM || error == EACCES;
        return ArenaError{"ARENA_MAP", "arena of " + in_bytes(bytes) + " cannot be mapped: " + reason(error) +
                                           (refused ? "; it must be writable: no F_SEAL_WRITE, opened for reading and writing" : "")};
    }
    arena.region = Region{static_cast<std::byte*>(memory), bytes};
    if (hugetlb) {
        if (const int error = take_pages(fd, bytes, arena.page_bytes); error != 0) {
            munmap(memory, bytes);
            return hugetlb_error(bytes, arena.page_bytes, error);
        }
        arena.huge_bytes = bytes;
        return arena;
    }
    const bool all_touched = !try_thp || bring_huge_pages(arena.region, thp);
    if (try_thp) arena.observe();
    if (arena.backing == Arena::Backing::shmem && wanted != HugePages::off) {
        arena.advice = all_touched ? huge_pages_advice(bytes, arena.huge_bytes)
                                   : "the arena has " + std::to_string(arena.huge_bytes >> 20) + " of " + std::to_string(bytes >> 20) +
                                         " MiB on huge pages; for more there was no time at the start, and it may get them as it is used: look at arena in stats";
    }
    return arena;
}

int make_memfd(unsigned flags) {
    const int fd = memfd_create("kvlane-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | memfd_noexec_seal | flags);
    if (fd >= 0 || errno != EINVAL) return fd;
    return memfd_create("kvlane-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
}

std::variant<Arena, ArenaError> make_sealed(uint64_t bytes, unsigned flags, HugePages wanted) {
    const int fd = make_memfd(flags);
    if (fd < 0) return ArenaError{"ARENA_CREATE", "an arena of " + in_bytes(bytes) + " cannot be made: memfd_create: " + reason(errno)};
    if (ftruncate(fd, static_cast<off_t>(bytes)) != 0 || fcntl(fd, F_ADD_SEALS, seals_wanted | F_SEAL_SEAL) != 0) {
        const int error = errno;
        close(fd);
        return ArenaError{"ARENA_CREATE", "an arena of " + in_bytes(bytes) + " cannot be made: " + reason(error)};
    }
    auto arena = map_memfd(fd, wanted);
    if (std::holds_alternative<ArenaError>(arena)) close(fd);
    return arena;
}

// The first size of pages that fits and is to be had; nothing where there is none, with the reason in `why`.
std::optional<Arena> make_hugetlb(uint64_t bytes, bool at_any_size, std::string& why) {
    why = "the kernel has no hugetlb pages";
    for (const HugetlbPool& pool : hugetlb_pools()) {
        if (pool.page_bytes < hugetlb_page_bytes_min) continue;
        if (!huge_page_fits(bytes, pool.page_bytes) && !(at_any_size && pool.page_bytes == hugetlb_page_bytes_usual)) continue;
        const auto shift = static_cast<unsigned>(__builtin_ctzll(pool.page_bytes));
        auto made = make_sealed(round_up(bytes, pool.page_bytes), MFD_HUGETLB | shift << 26U, HugePages::hugetlb);
        if (Arena* arena = std::get_if<Arena>(&made)) return *arena;
        why = std::get<ArenaError>(made).message;
    }
    return std::nullopt;
}

void let_go(Arena& arena) {
    munmap(arena.region.memory, arena.region.bytes);
    close(arena.fd);
}

}  // namespace

void Arena::observe() {
    if (backing == Backing::hugetlb || (huge_bytes > 0 && region.bytes - huge_bytes > look_small_bytes_max)) return;
    huge_bytes = std::min(thp_seen(region.memory, region.bytes).shared, region.bytes);
    backing = huge_bytes == region.bytes ? Backing::thp : Backing::shmem;
    page_bytes = backing == Backing::thp ? thp_bytes() : static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

std::variant<Arena, ArenaError> adopt_arena(int fd, HugePages wanted) {
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
    return map_memfd(fd, wanted);
}

std::variant<Arena, ArenaError> create_arena(uint64_t bytes, HugePages wanted) {
    if (bytes == 0 || bytes % static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) != 0) {
        return ArenaError{"ARENA_SIZE", "an arena must be a multiple of the page size, " + in_bytes(static_cast<uint64_t>(sysconf(_SC_PAGESIZE))) + ", got " + in_bytes(bytes)};
    }
    const bool must = wanted != HugePages::automatic && wanted != HugePages::off;
    std::string why;
    if (wanted != HugePages::thp && wanted != HugePages::off) {
        if (auto huge = make_hugetlb(bytes, must, why)) return *huge;
    }
    const uint64_t thp = wanted == HugePages::hugetlb || wanted == HugePages::off || !shared_thp_allowed() ? 0 : thp_bytes();
    const bool try_thp = thp > 0 && (must || huge_page_fits(bytes, thp));
    std::string no_thp = thp > 0 ? "" : "transparent huge pages are not allowed for shared memory";
    if (wanted == HugePages::hugetlb) no_thp = "";
    if (!must || try_thp) {
        auto made = make_sealed(try_thp ? round_up(bytes, thp) : bytes, 0, wanted);
        Arena* arena = std::get_if<Arena>(&made);
        if (!must || arena == nullptr || arena->backing == Arena::Backing::thp) return made;
        no_thp = "of transparent huge pages the kernel gave " + in_bytes(arena->huge_bytes);
        let_go(*arena);
    }
    const std::string both = why.empty() || no_thp.empty() ? why + no_thp : why + "; " + no_thp;
    const std::string advice = huge_pages_advice(std::max(bytes, hugetlb_page_bytes_usual), 0);
    return ArenaError{"ARENA_HUGE_PAGES", "huge pages were required, and there are too few: " + both + (advice.empty() ? "" : ". " + advice)};
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
