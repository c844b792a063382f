// header.cc — the block header page: written, judged.
#include "header.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace kvlane {

namespace {
std::atomic<bool> payloads_unchecked{false};
}

void leave_payloads_unchecked() { payloads_unchecked.store(true, std::memory_order_relaxed); }
bool payloads_are_unchecked() { return payloads_unchecked.load(std::memory_order_relaxed); }

uint64_t payload_xxh3(const void* first, size_t first_bytes, const void* second, size_t second_bytes) {
    if (payloads_are_unchecked()) return 0;
    return xxh3(first, first_bytes, second, second_bytes);
}

void write_header(HeaderPage& page, const HeaderFields& fields) {
    std::memset(static_cast<void*>(&page), 0, sizeof page);
    std::memcpy(page.magic, magic_bytes, sizeof page.magic);
    page.format = format_current;
    page.header_bytes = static_cast<uint32_t>(header_bytes);
    page.payload_bytes = fields.payload_bytes;
    page.payload_xxh3 = fields.payload_xxh3;
    page.created_unix_us = fields.created_unix_us;
    std::memcpy(page.writer, fields.writer.data(), std::min(fields.writer.size(), sizeof page.writer));
    page.name_space_bytes = static_cast<uint32_t>(fields.name_space.size());
    page.hex_bytes = static_cast<uint32_t>(fields.hex.size());
    std::memcpy(page.name_space, fields.name_space.data(), std::min(fields.name_space.size(), sizeof page.name_space));
    std::memcpy(page.hex, fields.hex.data(), std::min(fields.hex.size(), sizeof page.hex));
    page.header_xxh3 = xxh3(&page, offsetof(HeaderPage, header_xxh3));
}

// Unless the number alone is wrong: taken for a later format's, the block would be a miss for ever.
// Apart, because a page on the stack is a page that the lane keeps.
[[gnu::noinline]] static HeaderVerdict judge_later_format(const HeaderPage& page) {
    HeaderPage as_ours = page;
    as_ours.format = format_current;
    return as_ours.header_xxh3 == xxh3(&as_ours, offsetof(HeaderPage, header_xxh3)) ? HeaderVerdict::contradicts : HeaderVerdict::newer_format;
}

HeaderVerdict judge_header(const HeaderPage& page, size_t bytes) {
    const auto* raw = reinterpret_cast<const char*>(&page);
    if (std::all_of(raw, raw + bytes, [](char c) { return c == 0; })) return HeaderVerdict::blank;
    if (bytes < sizeof page.magic || std::memcmp(page.magic, magic_bytes, sizeof page.magic) != 0) return HeaderVerdict::foreign;
    if (bytes < sizeof page) return HeaderVerdict::contradicts;
    if (page.format > format_current) return judge_later_format(page);
    if (page.header_xxh3 != xxh3(&page, offsetof(HeaderPage, header_xxh3))) return HeaderVerdict::contradicts;
    if (page.format != format_current || page.header_bytes != header_bytes) return HeaderVerdict::contradicts;
    if (page.name_space_bytes > sizeof page.name_space || page.hex_bytes > sizeof page.hex) return HeaderVerdict::contradicts;
    return HeaderVerdict::valid;
}

bool header_names(const HeaderPage& page, std::string_view name_space, std::string_view hex) {
    return std::string_view(page.name_space, page.name_space_bytes) == name_space && std::string_view(page.hex, page.hex_bytes) == hex;
}

}  // namespace kvlane
