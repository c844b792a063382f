#include "leave.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <utility>

#include "keeper.h"
#include "thread.h"

namespace kvlane {

namespace {

// Asked without a call on any file system; even isatty would be an ioctl on a FUSE file.
bool pipe_or_socket(int fd) {
    if (fcntl(fd, F_GETPIPE_SZ) > 0) return true;
    int type = 0;
    socklen_t length = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0;
}

struct ParentWatch {
    int pidfd;
    std::function<void()> gone;
};

// Not a lane: it shares the descriptor table, and poll on a pidfd always comes back when it should.
void* watch_main(void* argument) {
    const std::unique_ptr<ParentWatch> watch(static_cast<ParentWatch*>(argument));
    name_this_thread("kv-parent");
    pollfd ready{watch->pidfd, POLLIN, 0};
    while (poll(&ready, 1, -1) < 0 && errno == EINTR) {
    }
    close(watch->pidfd);
    watch->gone();
    return nullptr;
}

}  // namespace

void leave_now(int code) {
    dismiss_keeper();
    for (int fd = 0; fd <= 2; ++fd) {
        if (pipe_or_socket(fd)) close(fd);
    }
    for (;;) syscall(SYS_exit_group, code);
}

std::string watch_parent(pid_t pid, std::function<void()> gone) {
    // A parent outside this pid namespace shows as 0.
    if (pid <= 0) return "the parent is outside this pid namespace and cannot be watched; only the end of stdin will tell";
    const bool was_parent = getppid() == pid;
    const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < 0) {
        const int error = errno;
        if (error == ESRCH) {
            gone();
            return "";
        }
        return "process " + std::to_string(pid) + " cannot be watched: pidfd_open: " + strerrorname_np(error) + "; only the end of stdin will tell";
    }
    if (was_parent && getppid() != pid) {  // it ended in between; the number may be somebody else's now
        close(pidfd);
        gone();
        return "";
    }
    auto watch = std::make_unique<ParentWatch>(ParentWatch{pidfd, std::move(gone)});
    const int error = start_detached_thread(watch_main, watch.get());
    if (error != 0) {
        close(pidfd);
        return "process " + std::to_string(pid) + " cannot be watched: no thread for it: " + strerrorname_np(error) + "; only the end of stdin will tell";
    }
    static_cast<void>(watch.release());
    return "";
}

}  // namespace kvlane
