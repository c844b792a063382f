// bell.h — how the loop is woken: an eventfd, which any thread may ring and nobody can block on.
//
// The one descriptor that a lane takes with it when it leaves the shared table: no pipe and no socket, so that a lane
// which is stuck in a dead process holds nothing open that anybody waits for. It is never closed: whoever rings late
// rings in an empty house.
#pragma once

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

namespace kvlane {

class Bell {
  public:
    Bell() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), error_(fd_ < 0 ? errno : 0) {}
    Bell(const Bell&) = delete;
    Bell& operator=(const Bell&) = delete;

    int fd() const { return fd_; }
    int error() const { return error_; }  // an errno: there is no such descriptor

    void ring() const noexcept {
        const uint64_t one = 1;
        if (write(fd_, &one, sizeof one) < 0) return;  // full: it rings already
    }
    // By who is called: it rings again for what comes from now on.
    void hear() const noexcept {
        uint64_t times;
        if (read(fd_, &times, sizeof times) < 0) return;  // it did not ring
    }

  private:
    const int fd_;
    const int error_;
};

}  // namespace kvlane
