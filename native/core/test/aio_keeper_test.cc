// aio_keeper_test.cc — the process that keeps the address space: there while needed, and gone with us.
//
// That a sidecar with stuck AIO is reaped at once needs a mount that is really stuck; test/stall has it.
// Here: what the keeper is, that it sees the end, and that it holds nothing of ours.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "../keeper.h"
#include "test.h"

#ifndef __SANITIZE_THREAD__  // which has no keeper, see keeper.cc

using namespace kvlane;

namespace {

// A process with a keeper, whose number comes through the pipe.
struct Sidecar {
    pid_t pid = 0;
    pid_t keeper = 0;
    int pipe_end = -1;

    explicit Sidecar(void (*body)()) {
        int ends[2] = {-1, -1};
        if (pipe2(ends, O_CLOEXEC) != 0) return;
        pid = fork();
        if (pid == 0) {
            forget_keeper_for_testing();
            keep_address_space();
            const pid_t number = keeper_pid();
            static_cast<void>(write(ends[1], &number, sizeof number));
            body();
            _exit(0);
        }
        close(ends[1]);
        pipe_end = ends[0];
        static_cast<void>(read(pipe_end, &keeper, sizeof keeper));
    }
    ~Sidecar() { close(pipe_end); }
    bool pipe_ended() const {
        pollfd ready{pipe_end, POLLIN, 0};
        char byte = 0;
        return poll(&ready, 1, 0) == 1 && read(pipe_end, &byte, 1) == 0;
    }
    bool reaped() const { return waitpid(pid, nullptr, WNOHANG) == pid; }
};

std::string status_of(pid_t pid, const std::string& field) {
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with(field + ":")) return line.substr(line.find_first_not_of(" \t", field.size() + 1));
    }
    return "";
}

// Ended: gone, or waiting for an init that reaps orphans.
bool ended(pid_t pid) { return status_of(pid, "State").empty() || status_of(pid, "State")[0] == 'Z'; }

unsigned descriptors(pid_t pid) {
    unsigned count = 0;
    for (int fd = 0; fd < 64; fd++) count += access(("/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd)).c_str(), F_OK) == 0 ? 1 : 0;
    return count;
}

}  // namespace

TEST("a killed process with a keeper is reaped, its pipe ends, and the keeper goes") {
    Sidecar sidecar([] {
        for (;;) pause();
    });
    CHECK(sidecar.keeper > 0 && sidecar.keeper != sidecar.pid);
    CHECK_EVENTUALLY(status_of(sidecar.keeper, "Name") == "kv-keeper");
    CHECK_EQUAL(descriptors(sidecar.keeper), 1U);  // the sidecar's pidfd
    CHECK_EQUAL(getsid(sidecar.keeper), sidecar.keeper);
    CHECK(kill(sidecar.pid, SIGKILL) == 0);
    CHECK_EVENTUALLY(sidecar.pipe_ended());
    CHECK_EVENTUALLY(sidecar.reaped());
    CHECK_EVENTUALLY(ended(sidecar.keeper));
}

TEST("a process that leaves with nothing in flight takes its keeper away itself") {
    Sidecar sidecar([] { dismiss_keeper(); });
    CHECK(sidecar.keeper > 0);
    CHECK_EVENTUALLY(sidecar.reaped());
    CHECK(kill(sidecar.keeper, 0) != 0 && errno == ESRCH);  // not even a zombie
}

TEST("nothing is submitted any more once a process that leaves has looked whether something is in flight") {
    Sidecar sidecar([] {
        if (!aio_begins()) _exit(1);
        aio_ended();
        dismiss_keeper();
        _exit(aio_begins() ? 2 : 3);
    });
    int status = 0;
    CHECK_EQUAL(waitpid(sidecar.pid, &status, 0), sidecar.pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

TEST("a process that leaves with something in flight leaves the keeper to wait") {
    Sidecar sidecar([] {
        aio_begins();
        dismiss_keeper();
        for (;;) pause();
    });
    CHECK_EVENTUALLY(status_of(sidecar.keeper, "Name") == "kv-keeper");
    CHECK(!ended(sidecar.keeper));
    CHECK(kill(sidecar.pid, SIGKILL) == 0);
    CHECK_EVENTUALLY(sidecar.reaped());
    CHECK_EVENTUALLY(ended(sidecar.keeper));
}

#endif
