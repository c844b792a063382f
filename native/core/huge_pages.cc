#include "huge_pages.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

namespace kvlane {

namespace {

constexpr const char* hugetlb_directory = "/sys/kernel/mm/hugepages";
constexpr const char* thp_directory = "/sys/kernel/mm/transparent_hugepage";
constexpr uint64_t waste_always_allowed = 2 << 20;
constexpr uint64_t waste_share = 8;  // rounding up may cost this part of the arena

// The first line, without its end; empty where there is no such file.
std::string line_of(const std::string& path) {
    char text[256] = "";
    FILE* const file = fopen(path.c_str(), "re");
    if (file == nullptr) return "";
    if (fgets(text, sizeof text, file) == nullptr) text[0] = '\0';
    fclose(file);
    text[strcspn(text, "\n")] = '\0';
    return text;
}

uint64_t number_of(const std::string& path) { return strtoull(line_of(path).c_str(), nullptr, 10); }

// "always [madvise] never" → madvise
std::string chosen(const std::string& path) {
    const std::string line = line_of(path);
    const size_t open = line.find('[');
    const size_t close = line.find(']');
    return open == std::string::npos || close == std::string::npos ? "" : line.substr(open + 1, close - open - 1);
}

std::string hugetlb_path(uint64_t page_bytes) { return std::string(hugetlb_directory) + "/hugepages-" + std::to_string(page_bytes >> 10) + "kB"; }

bool one_of(const std::string& word, std::initializer_list<const char*> words) {
    return std::any_of(words.begin(), words.end(), [&](const char* each) { return word == each; });
}

// Newer kernels have a policy for each size, which may point to the one above it.
bool allowed(const char* file, std::initializer_list<const char*> words) {
    const std::string directory = thp_directory;
    const std::string of_size = chosen(directory + "/hugepages-" + std::to_string(thp_bytes() >> 10) + "kB/" + file);
    const std::string above = chosen(directory + "/" + file);
    return one_of(of_size.empty() || of_size == "inherit" ? above : of_size, words);
}

}  // namespace

bool huge_pages_named(const std::string& word, HugePages& out) {
    static constexpr const char* words[] = {"auto", "require", "hugetlb", "thp", "off"};
    for (size_t i = 0; i < std::size(words); ++i) {
        if (word != words[i]) continue;
        out = static_cast<HugePages>(i);
        return true;
    }
    return false;
}

std::vector<HugetlbPool> hugetlb_pools() {
    std::vector<HugetlbPool> pools;
    DIR* const directory = opendir(hugetlb_directory);
    if (directory == nullptr) return pools;
    while (const dirent* entry = readdir(directory)) {
        unsigned long kib = 0;
        if (sscanf(entry->d_name, "hugepages-%lukB", &kib) != 1 || kib == 0) continue;
        const std::string path = hugetlb_path(uint64_t{kib} << 10);
        HugetlbPool pool;
        pool.page_bytes = uint64_t{kib} << 10;
        pool.pages = number_of(path + "/nr_hugepages");
        const uint64_t free = number_of(path + "/free_hugepages");
        const uint64_t promised = number_of(path + "/resv_hugepages");
        const uint64_t beyond = number_of(path + "/nr_overcommit_hugepages");
        const uint64_t beyond_used = number_of(path + "/surplus_hugepages");
        pool.available = (free > promised ? free - promised : 0) + (beyond > beyond_used ? beyond - beyond_used : 0);
        pools.push_back(pool);
    }
    closedir(directory);
    std::sort(pools.begin(), pools.end(), [](const HugetlbPool& a, const HugetlbPool& b) { return a.page_bytes > b.page_bytes; });
    return pools;
}

bool huge_page_fits(uint64_t bytes, uint64_t page_bytes) {
    return page_bytes > 0 && bytes >= page_bytes && round_up(bytes, page_bytes) - bytes <= std::max(waste_always_allowed, bytes / waste_share);
}

uint64_t thp_bytes() { return number_of(std::string(thp_directory) + "/hpage_pmd_size"); }
bool shared_thp_allowed() { return thp_bytes() > 0 && allowed("shmem_enabled", {"always", "within_size", "advise", "force"}); }
bool private_thp_allowed() { return thp_bytes() > 0 && allowed("enabled", {"always", "madvise"}); }

HugeBytes thp_seen(const std::byte* memory, uint64_t bytes) {
    HugeBytes seen;
    FILE* const file = fopen("/proc/self/smaps", "re");
    if (file == nullptr) return seen;
    const auto begin = reinterpret_cast<uintptr_t>(memory);
    char line[512];
    bool ours = false;
    while (fgets(line, sizeof line, file) != nullptr) {
        unsigned long from = 0;
        unsigned long to = 0;
        unsigned long kib = 0;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {  // sorted by address
            if (from >= begin + bytes) break;
            ours = from >= begin && to <= begin + bytes;
        } else if (ours && sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1) {
            seen.shared += uint64_t{kib} << 10;
        } else if (ours && sscanf(line, "AnonHugePages: %lu", &kib) == 1) {
            seen.anonymous += uint64_t{kib} << 10;
        }
    }
    fclose(file);
    return seen;
}

std::string huge_pages_advice(uint64_t bytes, uint64_t huge_bytes) {
    const uint64_t thp = thp_bytes();
    const std::string mib = std::to_string(huge_bytes >> 20) + " of " + std::to_string(bytes >> 20) + " MiB";
    const std::string what = "the arena has " + mib + " on huge pages, the rest on small ones, which makes reads and writes slower; ";
    if (huge_bytes > 0 && thp > 0 && huge_bytes == bytes / thp * thp) return what + "its size should be a multiple of " + std::to_string(thp) + " bytes";
    std::string commands;
    if (huge_bytes > 0 || shared_thp_allowed()) {
        // The host allows them and had too few: its memory is in pieces.
        if (bytes < thp) return "";
        commands = "echo 1 | sudo tee /proc/sys/vm/compact_memory";
    } else if (bytes >= thp && thp > 0) {
        commands = std::string("echo advise | sudo tee ") + thp_directory + "/shmem_enabled";
    }
    const auto pools = hugetlb_pools();
    for (auto pool = pools.rbegin(); pool != pools.rend(); ++pool) {  // the smallest that is worth it
        if (pool->page_bytes < (1 << 20) || bytes < pool->page_bytes) continue;
        const uint64_t needed = round_up(bytes, pool->page_bytes) / pool->page_bytes;
        if (needed <= pool->available) {
            // More of them would change nothing.
            return what + "yet " + std::to_string(pool->available) + " huge pages of " + std::to_string(pool->page_bytes >> 10) +
                   " KiB are free on the host: who made the arena did not ask for them, or a control group (hugetlb.*.max) or a cpuset kept them from it, or they have become free since: start again";
        }
        const std::string command = "echo " + std::to_string(pool->pages + needed - pool->available) + " | sudo tee " + hugetlb_path(pool->page_bytes) + "/nr_hugepages";
        commands = commands.empty() ? command : command + "  (or: " + commands + ")";
        break;
    }
    return commands.empty() ? "" : what + "on the host run  " + commands + "  and start again";
}

}  // namespace kvlane
