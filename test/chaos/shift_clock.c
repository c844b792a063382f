// shift_clock.c: a wall clock that jumps, for one process: LD_PRELOAD it. CLOCK_MONOTONIC stays what it is.
//
// The seconds to add stand in the file $KVLANE_CHAOS_CLOCK, eight bytes, mapped once and read at each call. Times in stat answers are
// shifted with it, so that a file looks as old as it would on a machine whose clock was set. A time namespace does not cover
// CLOCK_REALTIME, and the machine's own clock is not ours to set.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_s;

__attribute__((constructor)) static void find_offset(void) {
    const char *path = getenv("KVLANE_CHAOS_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof *offset_s, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) offset_s = map;
}

static int64_t shift(void) { return offset_s ? *offset_s : 0; }

static int is_wall(clockid_t id) { return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE || id == CLOCK_TAI; }

int clock_gettime(clockid_t id, struct timespec *to) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");  // through the vDSO, as ever
    int result = real(id, to);
    if (result == 0 && is_wall(id)) to->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *restrict to, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    *to = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}

int statx(int fd, const char *restrict path, int flags, unsigned mask, struct statx *restrict to) {
    long result = syscall(SYS_statx, fd, path, flags, mask, to);
    if (result == 0) {
        to->stx_atime.tv_sec += shift();
        to->stx_btime.tv_sec += shift();
        to->stx_ctime.tv_sec += shift();
        to->stx_mtime.tv_sec += shift();
    }
    return (int)result;
}
