// header.h — the first page of every block file: whose bytes these are, how many, and their checksum.
//
// The page is read and written together with the payload, in one call; nothing in it is trusted before
// its own checksum fits. Little endian on disk. Every later format keeps `magic` and `format` where
// they are: that is how an older sidecar knows that it must leave the file alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "checksum.h"

namespace kvlane {

inline constexpr uint32_t format_current = 1;
inline constexpr char magic_bytes[8] = {'\x89', 'K', 'V', 'L', 'A', 'N', 'E', '\n'};  // not text, damaged by line-end conversion

struct HeaderPage {
    char magic[8];
    uint32_t format;
    uint32_t header_bytes;     // where the payload starts
    uint64_t payload_bytes;
    uint64_t payload_xxh3;     // XXH3-64, seed 0
    uint64_t created_unix_us;
    char writer[16];           // the writing process's random name, hex
    uint32_t name_space_bytes;
    uint32_t hex_bytes;
    char name_space[80];       // zero-filled behind the name
    char hex[128];
    std::byte reserved[3816];  // zero
    uint64_t header_xxh3;      // of all bytes before it
};
static_assert(sizeof(HeaderPage) == 4096);
static_assert(offsetof(HeaderPage, format) == 8 && offsetof(HeaderPage, payload_bytes) == 16 && offsetof(HeaderPage, writer) == 40);
static_assert(offsetof(HeaderPage, name_space) == 64 && offsetof(HeaderPage, hex) == 144 && offsetof(HeaderPage, reserved) == 272);
static_assert(offsetof(HeaderPage, header_xxh3) == 4088);
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the page is little endian and written as it lies in memory");

inline constexpr uint64_t header_bytes = sizeof(HeaderPage);
inline constexpr size_t name_space_bytes_max = sizeof(HeaderPage::name_space);
inline constexpr size_t hex_bytes_max = sizeof(HeaderPage::hex);

// File size of a block: the payload is padded with zeros, so that O_DIRECT takes any length.
inline constexpr uint64_t padded(uint64_t bytes) { return (bytes + 4095) & ~uint64_t{4095}; }
inline constexpr uint64_t file_bytes(uint64_t payload_bytes) { return header_bytes + padded(payload_bytes); }

// A payload's checksum, of two parts because the last partial page lies elsewhere than the rest.
uint64_t payload_xxh3(const void* first, size_t first_bytes, const void* second, size_t second_bytes);

// From now on payload_xxh3 is 0, for all of the process: what a checksum costs can be seen only beside a product without one. A
// block stored so counts as damaged everywhere else.
void leave_payloads_unchecked();
bool payloads_are_unchecked();

struct HeaderFields {
    std::string_view name_space;
    std::string_view hex;
    uint64_t payload_bytes;
    uint64_t payload_xxh3;
    uint64_t created_unix_us;
    std::string_view writer;
};
void write_header(HeaderPage& page, const HeaderFields& fields);

enum class HeaderVerdict : uint8_t {
    valid,         // its own checksum fits; says nothing yet about whose block it is
    foreign,       // not our magic: somebody else's file
    blank,         // only zeros (or nothing): what a power cut leaves of a block that was never forced out
    newer_format,
    contradicts,   // our magic, and the page does not fit its own checksum or is cut short
};
// `bytes` of the page were read; fewer than all when the file is short.
HeaderVerdict judge_header(const HeaderPage& page, size_t bytes);
bool header_names(const HeaderPage& page, std::string_view name_space, std::string_view hex);

}  // namespace kvlane
