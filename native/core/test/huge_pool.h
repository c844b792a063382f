// huge_pool.h — for tests that want the host to have huge pages: asks for them as root, and puts the host's settings back.
//
// Where that is refused the test says SKIPPED and why, and goes on to nothing.
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include <iostream>
#include <string>

#include "../huge_pages.h"

namespace kvlane::test {

class HostSetting {
  public:
    explicit HostSetting(std::string path) : path_(std::move(path)), before_(read()) {}
    HostSetting(std::string path, std::string before) : path_(std::move(path)), before_(std::move(before)) {}
    HostSetting(const HostSetting&) = delete;
    HostSetting& operator=(const HostSetting&) = delete;
    ~HostSetting() {
        if (!before_.empty()) write(before_);
    }

    std::string read() const {
        char text[128] = "";
        FILE* const file = fopen(path_.c_str(), "re");
        if (file == nullptr) return "";
        if (fgets(text, sizeof text, file) == nullptr) text[0] = '\0';
        fclose(file);
        const std::string line = text;
        const size_t open = line.find('[');
        return open == std::string::npos ? line.substr(0, line.find('\n')) : line.substr(open + 1, line.find(']') - open - 1);
    }
    bool write(const std::string& word) const {
        FILE* const file = fopen(path_.c_str(), "we");
        if (file == nullptr) return false;
        const bool put = fputs(word.c_str(), file) >= 0;
        return fclose(file) == 0 && put;
    }

  private:
    const std::string path_;
    const std::string before_;
};

inline bool skipped(const std::string& why) {
    std::cout << "SKIPPED: " << why << std::endl;
    return true;
}

// So many pages of 2 MiB that are free and promised to nobody. `missing()`: there are not; the test is skipped.
class HugePool {
  public:
    explicit HugePool(unsigned pages) {
        const uint64_t have = available();
        if (have < pages) setting_.write(std::to_string(strtoull(setting_.read().c_str(), nullptr, 10) + pages - have));
        missing_ = available() < pages;
        exact_ = available() == pages;
    }
    bool missing() const { return missing_ && skipped("no huge pages can be set aside here (root, and memory in large pieces)"); }
    bool exact() const { return exact_; }  // false: the host has more of them, and they cannot be used up
    static uint64_t available() {
        for (const HugetlbPool& pool : hugetlb_pools()) {
            if (pool.page_bytes == 2 << 20) return pool.available;
        }
        return 0;
    }

  private:
    static constexpr const char* directory = "/sys/kernel/mm/hugepages/hugepages-2048kB";
    // Without pages over the number, which go when their user does: they are not to be kept by putting it back.
    static std::string set_aside() {
        const auto of = [](const char* name) { return strtoll(HostSetting(std::string(directory) + name, "").read().c_str(), nullptr, 10); };
        return std::to_string(of("/nr_hugepages") - of("/surplus_hugepages"));
    }
    HostSetting setting_{std::string(directory) + "/nr_hugepages", set_aside()};
    bool missing_ = true;
    bool exact_ = false;
};

// Shared memory that asks for transparent huge pages may have them, or may not.
class SharedThp {
  public:
    explicit SharedThp(const char* word) {
        setting_.write(word);
        refused_ = setting_.read() != word || thp_bytes() == 0;
    }
    bool refused() const { return refused_ && skipped("the host's policy for shared huge pages cannot be set here (root)"); }

  private:
    HostSetting setting_{"/sys/kernel/mm/transparent_hugepage/shmem_enabled"};
    bool refused_ = true;
};

}  // namespace kvlane::test
