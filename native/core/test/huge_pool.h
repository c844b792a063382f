// huge_pool.h — for tests that want the host to have huge pages, or none: test/support/host_pages.sh sets it so as root,
// and puts everything back even when the tests are killed.
//
// Where that is refused the test counts as skipped, and says why.
#pragma once

#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "../huge_pages.h"
#include "test.h"

namespace kvlane::test {

class HostPages {
  public:
    // "pool=4 shmem=never": exactly 4 free pages of 2 MiB, and no transparent ones for shared memory.
    explicit HostPages(const char* settings) {
        int to[2] = {-1, -1};
        int from[2] = {-1, -1};
        if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) return;
        const std::string command = "exec bash " + script() + " " + settings;
        const char* const words[] = {"bash", "-c", command.c_str(), nullptr};
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, to[0], 0);
        posix_spawn_file_actions_adddup2(&actions, from[1], 1);
        if (posix_spawnp(&keeper_, "bash", &actions, nullptr, const_cast<char* const*>(words), environ) != 0) keeper_ = -1;
        posix_spawn_file_actions_destroy(&actions);
        close(to[0]);
        close(from[1]);
        until_ = to[1];
        char byte = 0;
        while (read(from[0], &byte, 1) == 1 && byte != '\n') answer_ += byte;
        close(from[0]);
    }
    HostPages(const HostPages&) = delete;
    HostPages& operator=(const HostPages&) = delete;
    ~HostPages() {
        close(until_);
        if (keeper_ > 0) waitpid(keeper_, nullptr, 0);
    }
    bool refused() const { return answer_ != "ready" && skipped(answer_.empty() ? "bash " + script() + " says nothing" : answer_); }

    static uint64_t available() {
        for (const HugetlbPool& pool : hugetlb_pools()) {
            if (pool.page_bytes == 2 << 20) return pool.available;
        }
        return 0;
    }

  private:
    // From native/build/VARIANT/core_test.
    static std::string script() {
        char self[PATH_MAX] = "";
        if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return "";
        std::string path = self;
        for (int up = 0; up < 4; up++) path.erase(path.rfind('/'));
        return path + "/test/support/host_pages.sh";
    }
    pid_t keeper_ = -1;
    int until_ = -1;
    std::string answer_;
};

}  // namespace kvlane::test
