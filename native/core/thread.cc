#include "thread.h"

#include <dirent.h>
#include <errno.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace kvlane {

namespace {

#ifdef KVLANE_KEEP_STDIO
constexpr unsigned first_closed = 3;
#else
constexpr unsigned first_closed = 0;
#endif

// Before Linux 5.9. Only our copies are closed; the others keep theirs.
int leave_descriptor_table_by_hand(int kept) {
    if (unshare(CLONE_FILES) != 0) return errno;
    DIR* own = opendir("/proc/thread-self/fd");
    if (own != nullptr) {
        const int listing = dirfd(own);
        while (const dirent* entry = readdir(own)) {
            const long fd = strtol(entry->d_name, nullptr, 10);
            if (entry->d_name[0] != '.' && fd >= static_cast<long>(first_closed) && fd != listing && fd != kept) close(static_cast<int>(fd));
        }
        closedir(own);
        return 0;
    }
    // No /proc: by number. More than a million descriptors are nobody's in a sidecar.
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    const unsigned end = limit.rlim_cur > (1U << 20) ? 1U << 20 : static_cast<unsigned>(limit.rlim_cur);
    for (unsigned fd = first_closed; fd < end; ++fd) {
        if (static_cast<int>(fd) != kept) close(static_cast<int>(fd));
    }
    return 0;
}

}  // namespace

int start_detached_thread(void* (*main)(void*), void* argument) {
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0) return error;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, thread_stack_bytes);

    // The mask is inherited: blocked here for the moment of birth, so that no signal finds the new
    // thread without it.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    error = pthread_create(&thread, &attributes, main, argument);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    return error;
}

void name_this_thread(const char* name) { pthread_setname_np(pthread_self(), name); }

int leave_descriptor_table(int kept) {
    const unsigned keep = kept < 0 ? 0 : static_cast<unsigned>(kept);
    const unsigned behind = kept < 0 || keep < first_closed ? first_closed : keep + 1;
    const auto closed = [](unsigned first, unsigned last) { return syscall(SYS_close_range, first, last, CLOSE_RANGE_UNSHARE) == 0; };
    if (closed(behind, ~0U) && (keep <= first_closed || closed(first_closed, keep - 1))) return 0;
    return leave_descriptor_table_by_hand(kept);
}

}  // namespace kvlane
