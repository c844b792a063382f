#include "aio.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

namespace kvlane {
namespace {

class KernelAio final : public AioCalls {
  public:
    int setup(unsigned events, aio_context_t& context) override {
        context = 0;
        return result(syscall(SYS_io_setup, events, &context));
    }
    int submit(aio_context_t context, iocb& request) override {
        iocb* one = &request;
        return result(syscall(SYS_io_submit, context, 1L, &one));
    }
    int wait(aio_context_t context, io_event* events, unsigned count, uint64_t timeout_us) override {
        timespec limit{static_cast<time_t>(timeout_us / 1'000'000), static_cast<long>(timeout_us % 1'000'000) * 1'000};
        const int got = result(syscall(SYS_io_getevents, context, 1L, static_cast<long>(count), events, &limit));
        return got == -EINTR ? 0 : got;
    }
    int destroy(aio_context_t context) override { return result(syscall(SYS_io_destroy, context)); }

  private:
    static int result(long value) { return value < 0 ? -errno : static_cast<int>(value); }
};

std::atomic<AioCalls*> in_use{nullptr};

// A number below /proc/sys/fs, which is no mount of ours and always answers.
std::string number_in(const char* path) {
    char text[32] = {};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t bytes = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (bytes <= 0) return "?";
    text[strcspn(text, "\n")] = 0;
    return text;
}

}  // namespace

AioCalls& kernel_aio() {
    static KernelAio* const it = new KernelAio;  // leaked: lanes outlive static destructors
    return *it;
}

AioCalls& aio_calls() {
    AioCalls* const calls = in_use.load(std::memory_order_acquire);
    return calls != nullptr ? *calls : kernel_aio();
}
void set_aio_calls_for_testing(AioCalls* calls) { in_use.store(calls, std::memory_order_release); }

std::string aio_refusal(int error) {
    std::string text = "the aio engine gets no context from the kernel (io_setup: " + std::string(strerrorname_np(error)) + ")";
    if (error == EAGAIN) {
        text += ": fs.aio-nr is " + number_in("/proc/sys/fs/aio-nr") + " of fs.aio-max-nr " + number_in("/proc/sys/fs/aio-max-nr") +
                "; raise it with sysctl fs.aio-max-nr=1048576";
    }
    if (error == ENOSYS || error == EPERM) text += ": this kernel, or a filter in front of it, has no native AIO";
    return text + "; threads are used instead";
}

}  // namespace kvlane
