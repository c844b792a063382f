// arena.h — the memory that blocks are read into and written from.
//
// Region 0 is a memfd that the client shares with us, sealed so that neither side can take pages away
// under the other's feet; region 1 is private staging memory. Neither is ever unmapped: a call that
// the kernel has not given back may still write there, however long ago its caller gave up.
//
// Huge pages more than double what a disk gives (one segment a transfer instead of hundreds), so they are
// taken where the host has any. Pages of the hugetlb pool are taken whole at the start: mapping only
// reserves them, and a control group or a cpuset that has none left would be SIGBUS at the first touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include "huge_pages.h"

namespace kvlane {

inline constexpr uint64_t region_align_bytes = 4096;  // what O_DIRECT wants everywhere, and the store's page

struct Region {
    std::byte* memory = nullptr;
    uint64_t bytes = 0;

    // Aligned, not empty, inside.
    bool covers(uint64_t offset, uint64_t length) const {
        return memory != nullptr && length > 0 && offset % region_align_bytes == 0 && offset <= bytes && length <= bytes - offset;
    }
};

struct Arena {
    enum class Backing : uint8_t { shmem, thp, hugetlb };
    Region region;
    int fd = -1;
    // As observed. `thp` and its page size only when every byte lies on huge pages; `huge_bytes` counts them.
    Backing backing = Backing::shmem;
    uint64_t page_bytes = 0;
    uint64_t huge_bytes = 0;
    std::string advice;  // what the host's administrator should run; empty where nothing is to be gained or wanted

    // Transparent huge pages come and go: looks again, touches nothing. Not at an arena that has some and more than that on small
    // ones: a look goes through every small page that is mapped, and who asks is the thread that answers all others.
    void observe();
    static constexpr uint64_t look_small_bytes_max = 256 << 20;  // some 5 ms
};

struct ArenaError {
    const char* code;  // stable, for programs
    std::string message;
};

// The descriptor stays the caller's, open for as long as the process lives. No call is made on it that
// could reach a file system before it has proved to be a memfd. Which pages it has was its maker's
// choice: of `wanted` only `off` counts, which keeps us from asking for any.
std::variant<Arena, ArenaError> adopt_arena(int fd, HugePages wanted = HugePages::automatic);

// A sealed memfd of our own, rounded up to whole huge pages where it gets them.
std::variant<Arena, ArenaError> create_arena(uint64_t bytes, HugePages wanted = HugePages::automatic);

std::variant<Region, ArenaError> create_staging(uint64_t bytes);

}  // namespace kvlane
