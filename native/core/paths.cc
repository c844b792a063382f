// paths.cc — names below a store's root.
#include "paths.h"

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <vector>

namespace kvlane {
namespace {

bool digit(char c) { return c >= '0' && c <= '9'; }
bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::atomic<uint64_t> counter{0};

std::string make_writer_name() {
    uint64_t random = 0;
    // Early at boot getrandom may have nothing yet; a clock and a pid must do then: the names are O_EXCL anyway.
    if (::getrandom(&random, sizeof random, GRND_NONBLOCK) != static_cast<ssize_t>(sizeof random)) {
        timespec now = {};
        clock_gettime(CLOCK_REALTIME, &now);
        random = static_cast<uint64_t>(now.tv_sec) * 1'000'000'007U ^ static_cast<uint64_t>(now.tv_nsec) << 20 ^ static_cast<uint64_t>(::getpid());
    }
    std::string name(16, '0');
    for (char& c : name) {
        c = "0123456789abcdef"[random & 15];
        random >>= 4;
    }
    return name;
}

// "a/b" → a, b; never without one.
std::vector<std::string_view> components(std::string_view path) {
    std::vector<std::string_view> names;
    for (;;) {
        const size_t slash = path.find('/');
        names.push_back(path.substr(0, slash));
        if (slash == std::string_view::npos) return names;
        path.remove_prefix(slash + 1);
    }
}

std::string unique() { return writer_name() + "-" + std::to_string(counter.fetch_add(1, std::memory_order_relaxed) + 1); }

}  // namespace

bool plain_name_space(std::string_view name_space) {
    const size_t at = name_space.find('@');
    const std::string_view name = name_space.substr(0, at);
    if (name.empty() || name.size() > 64 || !(digit(name[0]) || letter(name[0]))) return false;
    if (!std::all_of(name.begin(), name.end(), [](char c) { return digit(c) || letter(c) || c == '.' || c == '_' || c == '-'; })) return false;
    if (at == std::string_view::npos) return true;
    const std::string_view generation = name_space.substr(at + 1);
    return !generation.empty() && generation.size() <= 10 && std::all_of(generation.begin(), generation.end(), digit);
}

bool plain_hex(std::string_view hex) {
    return hex.size() >= 2 && hex.size() <= 128 &&
           std::all_of(hex.begin(), hex.end(), [](char c) { return digit(c) || (c >= 'a' && c <= 'f'); });
}

bool plain_component(std::string_view name) {
    return !name.empty() && name.size() <= 255 && name != "." && name != ".." && name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

uint64_t lease_number(std::string_view name) {
    if (name.empty() || name.size() > 15 || name[0] == '0' || !std::all_of(name.begin(), name.end(), digit)) return 0;
    uint64_t number = 0;
    for (const char c : name) number = number * 10 + static_cast<uint64_t>(c - '0');
    return number;
}

bool lease_draft(std::string_view name) {
    const size_t dot = name.find('.');
    if (dot == std::string_view::npos || lease_number(name.substr(0, dot)) == 0 || !name.ends_with(".tmp")) return false;
    name.remove_prefix(dot + 1);
    name.remove_suffix(std::min(name.size(), size_t{4}));
    const size_t dash = name.find('-');
    const std::string_view writer = name.substr(0, dash);
    if (dash == std::string_view::npos || writer.size() != writer_name().size() || !plain_hex(writer)) return false;
    const std::string_view count = name.substr(dash + 1);
    return !count.empty() && count.size() <= 20 && std::all_of(count.begin(), count.end(), digit);
}

bool listable(std::string_view path) {
    const auto names = components(path);
    if (!std::all_of(names.begin(), names.end(), plain_component)) return false;
    if (names[0] == blocks_name) return names.size() <= 3;
    if (names[0] == recycle_name || names[0] == probe_name) return names.size() <= 2;
    return names.size() == 1 && (names[0] == aside_name || names[0] == name_spaces_name || names[0] == collector_name);
}

bool leftover(std::string_view path) {
    const auto names = components(path);
    if (!std::all_of(names.begin(), names.end(), plain_component)) return false;
    if (names[0] == blocks_name) return names.size() == 4 && plain_name_space(names[1]) && names[2].size() == 2 && plain_hex(names[2]) && names[3].ends_with(".tmp");
    if (names[0] == recycle_name) return names.size() == 3;
    return names.size() == 2 && names[0] == aside_name;
}

bool own_leftover(std::string_view path) {
    const auto names = components(path);
    if (names[0] == recycle_name) return names.size() > 1 && names[1] == writer_name();
    return names[0] == blocks_name && names.back().find("." + writer_name() + "-") != std::string_view::npos;
}

std::string fan_out(std::string_view hex) { return std::string(hex.substr(0, 2)); }
std::string block_file(std::string_view hex) { return std::string(hex) + ".kvb"; }

std::string block_directory(std::string_view name_space, std::string_view hex) {
    return std::string(blocks_name) + "/" + std::string(name_space) + "/" + fan_out(hex);
}
std::string block_path(std::string_view name_space, std::string_view hex) {
    return block_directory(name_space, hex) + "/" + block_file(hex);
}

const std::string& writer_name() {
    static const std::string* const name = new std::string(make_writer_name());  // leaked: lanes outlive static destructors
    return *name;
}

std::string temporary_name(std::string_view prefix) { return std::string(prefix) + "." + unique() + ".tmp"; }

std::string recycle_directory() { return std::string(recycle_name) + "/" + writer_name(); }

std::string aside_file(std::string_view name_space, std::string_view hex, uint64_t inode) {
    return std::string(name_space) + "." + std::string(hex) + "." + std::to_string(inode) + "." + unique();
}

}  // namespace kvlane
