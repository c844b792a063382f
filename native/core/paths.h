// paths.h — where things lie below a store's root. Names only, no call.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvlane {

inline constexpr const char* identity_name = "kvlane.json";
inline constexpr const char* blocks_name = "blocks";
inline constexpr const char* aside_name = "aside";
inline constexpr const char* recycle_name = "recycle";
inline constexpr const char* collector_name = "collector";
inline constexpr const char* probe_name = "probe";
inline constexpr const char* name_spaces_name = "namespaces";
inline constexpr const char* probe_block_name = "block";

// The second gate after the protocol's: nothing that is not one plain path component passes.
bool plain_name_space(std::string_view name_space);
bool plain_hex(std::string_view hex);

bool plain_component(std::string_view name);  // one name, not "." or ".."
// "blocks", "blocks/NS", "blocks/NS/ab", "recycle", "recycle/W", "aside", "namespaces", "collector", "probe", "probe/N": what may be listed.
bool listable(std::string_view path);
// What is no block, may be left over, and may be removed by hand: "blocks/NS/ab/….tmp", "recycle/W/N", "aside/N".
bool leftover(std::string_view path);
// It is a file that this process itself is writing, or keeps to overwrite it.
bool own_leftover(std::string_view path);

// "8" → 8; 0: it is none. Numbers end with 999,999,999,999,999: the next one is still exact wherever it goes.
inline constexpr uint64_t lease_number_max = 999'999'999'999'999;
uint64_t lease_number(std::string_view name);
// "8.<writer>-<n>.tmp": a lease in the making.
bool lease_draft(std::string_view name);
// Two empty files beside the leases, of which only the times count (block_lease.cc).
inline constexpr const char* want_name = "want";
inline constexpr const char* made_name = "made";

std::string fan_out(std::string_view hex);     // "9f", from the first two digits
std::string block_file(std::string_view hex);  // "9f3c….kvb"
std::string block_path(std::string_view name_space, std::string_view hex);       // "blocks/llama/9f/9f3c….kvb"
std::string block_directory(std::string_view name_space, std::string_view hex);  // "blocks/llama/9f"

// Random once per process: two processes, on whatever hosts, never make the same name.
const std::string& writer_name();  // 16 hex digits
// "<prefix>.<writer>-<n>.tmp", n never used twice in this process.
std::string temporary_name(std::string_view prefix);
// "recycle/<writer>". Only its maker takes files out of it, whoever else may read the store.
std::string recycle_directory();
std::string aside_file(std::string_view name_space, std::string_view hex, uint64_t inode);

}  // namespace kvlane
