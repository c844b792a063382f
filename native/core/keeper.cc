// keeper.cc — the keeper's life: wait for the sidecar's end on a pidfd, then leave.
//
// It runs on a stack of its own but with the thread-local storage of the lane that made it, which may be
// gone by then. So it makes raw system calls only: not even the C library's errno is its own.
#include "keeper.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

namespace kvlane {
namespace {

std::atomic<pid_t> keeper{0};
std::atomic<int> in_flight{0};
std::atomic<bool> asked{false};
std::atomic<bool> leaving{false};

// ThreadSanitizer takes clone for a fork and then sees races everywhere.
#if defined(__SANITIZE_THREAD__)
#elif defined(__x86_64__)
[[gnu::always_inline]] inline long raw_call(long number, long a = 0, long b = 0, long c = 0, long d = 0) {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = 0;
    asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
}
#define KVLANE_HAS_KEEPER 1
#elif defined(__aarch64__)
[[gnu::always_inline]] inline long raw_call(long number, long a = 0, long b = 0, long c = 0, long d = 0) {
    register long x8 asm("x8") = number;
    register long x0 asm("x0") = a;
    register long x1 asm("x1") = b;
    register long x2 asm("x2") = c;
    register long x3 asm("x3") = d;
    register long x4 asm("x4") = 0;
    asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory", "cc");
    return x0;
}
#define KVLANE_HAS_KEEPER 1
#endif

#ifdef KVLANE_HAS_KEEPER

constexpr size_t stack_bytes = 64 << 10;  // a page of arm64 may be 64 KiB

[[gnu::no_sanitize_address, gnu::no_sanitize_thread, gnu::no_sanitize_undefined, gnu::no_stack_protector, noreturn]]
int keeper_main(void* argument) {
    const long pidfd = reinterpret_cast<long>(argument);
    // Out of the process group: a SIGKILL for all of it must not take the keeper first.
    raw_call(SYS_setsid);
    if (pidfd > 0) raw_call(SYS_close_range, 0, pidfd - 1);
    raw_call(SYS_close_range, pidfd + 1, 0x7fffffff);
    char name[] = {'k', 'v', '-', 'k', 'e', 'e', 'p', 'e', 'r', '\0'};
    raw_call(SYS_prctl, PR_SET_NAME, reinterpret_cast<long>(name));
    pollfd ended = {static_cast<int>(pidfd), POLLIN, 0};
    // Every signal is blocked, as in the lane; EINTR comes from a debugger.
    while (raw_call(SYS_ppoll, reinterpret_cast<long>(&ended), 1) == -EINTR) {
    }
    for (;;) raw_call(SYS_exit_group, 0);
}

int make_keeper() {
    const long pidfd = syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd < 0) return -errno;
    void* stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    int made = -ENOMEM;
    if (stack != MAP_FAILED) {  // never unmapped: the keeper stands on it
        // No exit signal: nobody in this process waits for it. Untraced: a tracer of the sidecar does not get it.
        made = clone(keeper_main, static_cast<char*>(stack) + stack_bytes, CLONE_VM | CLONE_UNTRACED, reinterpret_cast<void*>(pidfd));
        if (made < 0) made = -errno;
    }
    close(static_cast<int>(pidfd));
    return made;
}

#else
int make_keeper() { return -ENOSYS; }
#endif

std::string make_once() {
    const int made = make_keeper();
    if (made > 0) {
        keeper.store(made, std::memory_order_release);
        return "";
    }
    return "no process can be made that outlives this one (" + std::string(strerrorname_np(-made)) +
           "): killed with aio in flight on a stuck mount, this process is not reaped and its pipes stay open until the mount answers";
}

}  // namespace

std::string keep_address_space() {
    return asked.exchange(true) ? "" : make_once();
}

pid_t keeper_pid() { return keeper.load(std::memory_order_acquire); }

void forget_keeper_for_testing() {
    asked.store(false);
    keeper.store(0);
    in_flight.store(0);
    leaving.store(false);
}

// This side counts and then looks, the other says and then looks at the count, all in one order
// (seq_cst): whoever comes second sees the first.
bool aio_begins() {
    in_flight.fetch_add(1);
    if (!leaving.load()) return true;
    in_flight.fetch_sub(1);
    return false;
}

void aio_ended() { in_flight.fetch_sub(1); }

void dismiss_keeper() {
    const pid_t pid = keeper_pid();
    leaving.store(true);
    if (pid == 0 || in_flight.load() != 0) return;
    if (kill(pid, SIGKILL) != 0) return;
    const timespec pause{0, 100'000};
    for (int i = 0; i < 100; i++) {  // 10 ms at most; it takes a tenth of one
        if (waitpid(pid, nullptr, __WALL | WNOHANG) != 0) {
            keeper.store(0, std::memory_order_release);
            return;
        }
        nanosleep(&pause, nullptr);
    }
}

}  // namespace kvlane
