// store_identity.h — kvlane.json at the root: which store this is. Made once, compared for ever.
#pragma once

#include <string>

#include "lane_context.h"

namespace kvlane {

inline constexpr uint32_t store_format = 1;

enum class IdentityVerdict : uint8_t { found, absent, unreadable_text, failed };

// Reads kvlane.json through an open root. `failed`: `error` is a negative errno or -call_refused, at `phase`.
struct IdentityReading {
    IdentityVerdict verdict = IdentityVerdict::failed;
    std::string store_id;
    int error = 0;
    Phase phase = Phase::open;
};
IdentityReading read_identity(LaneContext& lane, Operation& operation, int root);

// A whole small record below a directory, in one read. Returns its length or a negative errno; the phase it ended in.
// Uses the lane's header page, so it comes before anything else of the operation does.
int64_t read_small_file(LaneContext& lane, Operation& operation, int directory, const char* name, std::string& out, Phase& phase,
                        FileStat* about = nullptr);

// Writes a small record under `name` so that it appears whole or not at all.
enum class Publish : uint8_t {
    only_if_absent,  // -EEXIST when the name is taken; exactly one of many at the same time succeeds
    replace,
};
enum class Force : uint8_t {
    out,         // it outlasts a power cut, and so does its name
    not_at_all,
};
int publish_small_file(LaneContext& lane, Operation& operation, int directory, const char* name, const std::string& text, Publish how,
                       uint32_t mode, Phase& phase, Force force = Force::out);

// The names in a directory, as far as its file system lets itself be asked.
void force_out_names(LaneContext& lane, Operation& operation, int directory);

inline constexpr int not_a_record = 4097;  // negated, by read_small_file: a directory, a device, or far too long
inline constexpr size_t small_file_bytes_max = 64 * 1024;  // a fingerprint is some hundred bytes

}  // namespace kvlane
