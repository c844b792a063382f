// openat2_test.cc — a machine without openat2 is told from one that has it.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "../file_system.h"
#include "test.h"

using namespace kvlane;

namespace {

// As an old container profile does it.
bool answer_openat2_with(int error) {
    sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{sizeof rules / sizeof rules[0], rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// In a process of its own: a filter is never taken off again.
bool refused_with(int error, const char* word) {
    const pid_t child = fork();
    if (child == 0) {
        if (!answer_openat2_with(error)) _exit(2);
        const std::string refusal = openat2_refusal();
        _exit(refusal.find("openat2") != std::string::npos && refusal.find(word) != std::string::npos ? 0 : 1);
    }
    int status = -1;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

TEST("openat2 that a seccomp profile or an old kernel does not give is named, and one that is there is not") {
    CHECK_EQUAL(openat2_refusal(), std::string());
    CHECK(refused_with(EPERM, "EPERM"));
    CHECK(refused_with(ENOSYS, "ENOSYS"));
}
