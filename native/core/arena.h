// arena.h — the memory that blocks are read into and written from.
//
// Region 0 is a memfd that the client shares with us, sealed so that neither side can take pages away
// under the other's feet; region 1 is private staging memory. Neither is ever unmapped: a call that
// the kernel has not given back may still write there, however long ago its caller gave up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

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
    enum class Backing : uint8_t { shmem, hugetlb };
    Region region;
    int fd = -1;
    uint64_t page_bytes = 0;
    Backing backing = Backing::shmem;  // as observed
};

struct ArenaError {
    const char* code;  // stable, for programs
    std::string message;
};

// The descriptor stays the caller's, open for as long as the process lives. No call is made on it that
// could reach a file system before it has proved to be a memfd.
std::variant<Arena, ArenaError> adopt_arena(int fd);

// A sealed memfd of our own: huge pages where `bytes` is a multiple of theirs and enough are free.
std::variant<Arena, ArenaError> create_arena(uint64_t bytes);

std::variant<Region, ArenaError> create_staging(uint64_t bytes);

}  // namespace kvlane
