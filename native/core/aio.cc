#include "aio.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
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
        prepare_nudges();
        return result(syscall(SYS_io_setup, events, &context));
    }
    int submit(aio_context_t context, iocb& request) override {
        iocb* one = &request;
        return result(syscall(SYS_io_submit, context, 1L, &one));
    }
    int wait(aio_context_t context, io_event* events, unsigned count, uint64_t timeout_us) override {
        timespec limit{static_cast<time_t>(timeout_us / 1'000'000), static_cast<long>(timeout_us % 1'000'000) * 1'000};
        // A lane blocks every signal; this one gets through for exactly as long as it waits here, and one
        // that came before is pending and ends the wait at once. So no nudge is lost, and no descriptor is
        // needed, which a lane could not share.
        sigset_t all_but_nudge;
        sigfillset(&all_but_nudge);
        sigdelset(&all_but_nudge, nudge_signal);
        const struct {
            const sigset_t* signals;
            size_t bytes;
        } mask = {&all_but_nudge, kernel_sigset_bytes};
        int got = -ENOSYS;
        if (nudges_.load(std::memory_order_relaxed)) got = result(syscall(SYS_io_pgetevents, context, 1L, static_cast<long>(count), events, &limit, &mask));
        if (got == -ENOSYS || got == -EPERM) {  // before Linux 4.18, or a filter: look again and again
            nudges_.store(false, std::memory_order_relaxed);
            if (timeout_us > wait_without_nudges_us) limit = {0, wait_without_nudges_us * 1'000};
            got = result(syscall(SYS_io_getevents, context, 1L, static_cast<long>(count), events, &limit));
        }
        return got == -EINTR ? 0 : got;
    }
    void nudge(pid_t tid) override { tgkill(getpid(), tid, nudge_signal); }
    int destroy(aio_context_t context) override { return result(syscall(SYS_io_destroy, context)); }

  private:
    // Ignored by default, so that one too many harms nobody; Go wakes its threads with it for the same reason.
    static constexpr int nudge_signal = SIGURG;
    static constexpr size_t kernel_sigset_bytes = 8;  // glibc's is larger; the kernel wants its own size
    static constexpr long wait_without_nudges_us = 20'000;

    // A signal that is ignored ends no wait: it needs a handler, if only one that does nothing.
    void prepare_nudges() {
        if (prepared_.exchange(true)) return;
        struct sigaction now = {};
        if (sigaction(nudge_signal, nullptr, &now) != 0 || (now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN)) return;
        struct sigaction handler = {};
        handler.sa_handler = [](int) {};
        handler.sa_flags = SA_RESTART;  // for those who get one from outside
        sigaction(nudge_signal, &handler, nullptr);
    }
    std::atomic<bool> prepared_{false};
    std::atomic<bool> nudges_{true};

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
