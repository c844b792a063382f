// huge_pages.h — what this kernel offers of huge pages, and what a mapping has really got of them.
//
// madvise(MADV_HUGEPAGE) succeeds on shared memory also where the host's policy makes it mean nothing,
// so nothing here is believed because it was asked for: hugetlb is known by its file system, transparent
// huge pages by the page tables (smaps). Reads /proc and /sys only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kvlane {

enum class HugePages : uint8_t {
    automatic,  // hugetlb, else transparent huge pages, else small ones
    require,    // hugetlb or transparent huge pages, else an error
    hugetlb,    // this or an error
    thp,        // this or an error
    off,
};
// False: there is no such word.
bool huge_pages_named(const std::string& word, HugePages& out);

// One size of the hugetlb pool.
struct HugetlbPool {
    uint64_t page_bytes = 0;
    uint64_t pages = 0;      // set aside
    uint64_t available = 0;  // of these neither used nor promised, and what may be had beyond
};
// Largest pages first.
std::vector<HugetlbPool> hugetlb_pools();

// Where an arena of so many bytes does not waste a page: at least one, and rounded up by little.
bool huge_page_fits(uint64_t bytes, uint64_t page_bytes);

inline constexpr uint64_t round_up(uint64_t bytes, uint64_t page) { return (bytes + page - 1) / page * page; }

// What one entry of a page table's second level covers; 0 where the kernel has no transparent huge pages.
uint64_t thp_bytes();
// By the host's policy, for memory that asks by madvise: shared (memfd), private.
bool shared_thp_allowed();
bool private_thp_allowed();

// Bytes of [memory, memory + bytes) that lie on transparent huge pages just now. Shared memory as this
// process has it mapped: what it never touched does not count.
struct HugeBytes {
    uint64_t shared = 0;
    uint64_t anonymous = 0;
};
HugeBytes thp_seen(const std::byte* memory, uint64_t bytes);

// One sentence with what gives an arena of so many bytes huge pages, mostly a command; empty where it is too small for one.
std::string huge_pages_advice(uint64_t bytes, uint64_t huge_bytes);

}  // namespace kvlane
