// lease.h — collector/: which process may remove blocks for room. Files named by numbers, and the highest is the lease.
//
// The number never goes down: a lease is taken by making the next file, and only files below the one before the highest are
// removed. A name that is changed late, by a call that was stuck, can bring back a low number; so what counts is always the highest,
// and the whole directory is looked at, opened for reading each time: on a network file system that asks the server, where the look at
// one name might be answered from what this host remembers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lane_context.h"

namespace kvlane {

// Two leases, the two signs, and what was left over of leases that were being made. With more in it somebody else uses the directory.
inline constexpr size_t lease_entries_max = 4096;

struct Leases {
    std::vector<uint64_t> numbers;    // ascending
    std::vector<std::string> drafts;  // made, and not a lease yet
    bool want = false;  // something has that name
    bool made = false;
    uint64_t highest() const { return numbers.empty() ? 0 : numbers.back(); }
};

// 0, also where there is no directory; or a negative errno: -E2BIG beyond lease_entries_max.
int read_leases(LaneContext& lane, Operation& operation, int root, Leases& out);

// For people, where read_leases failed.
std::string lease_trouble(int error);

}  // namespace kvlane
