// leave_test.cc — the end of the process, seen from a child and as one.
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "leave.h"
#include "test.h"

using namespace kvlane;
using namespace kvlane::test;

TEST("a parent that has ended already is told of at once") {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, nullptr, 0);
    int told = 0;
    CHECK_EQUAL(watch_parent(child, [&] { ++told; }), std::string());
    CHECK_EQUAL(told, 1);
}

TEST("a process is told of once when it ends, and not before") {
    int hold[2];
    CHECK(pipe(hold) == 0);
    const pid_t child = fork();
    if (child == 0) {
        close(hold[1]);
        char byte;
        _exit(read(hold[0], &byte, 1) < 0 ? 1 : 0);
    }
    close(hold[0]);
    auto* told = new std::atomic<int>{0};
    CHECK_EQUAL(watch_parent(child, [told] { ++*told; }), std::string());
    CHECK_EQUAL(told->load(), 0);
    close(hold[1]);
    CHECK_EVENTUALLY(told->load() == 1);
    waitpid(child, nullptr, 0);
}

TEST("what cannot be watched is said") {
    CHECK(!watch_parent(0, [] {}).empty());
}

TEST("leaving ends the process with the status asked for, without its exit handlers") {
    const pid_t child = fork();
    if (child == 0) {
        atexit([] { _exit(99); });
        leave_now(7);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK_EQUAL(WEXITSTATUS(status), 7);
}
