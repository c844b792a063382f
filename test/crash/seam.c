// seam.c: between the sidecar's lanes and the kernel, by LD_PRELOAD: the native core makes its raw calls through syscall(3).
//
//   KVLANE_SEAM=FILE        a page that is shared with the test: how many calls the lanes have made, and what the next kill is
//   KVLANE_SEAM_TYPE=HEX    what fstatfs says the file system is: recycling asks
//   KVLANE_SEAM_PLANT=WORD  a fault that the tests must find: see planted() below
//
// The kill is SIGKILL of the whole process, by the lane itself: before the call, after it, or (torn) in a write of which only a part
// is made. So nothing depends on timing, and every step has its turn.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BEFORE = 1, AFTER = 2, TORN = 3 };
struct page {
    _Atomic uint32_t calls;      // of store and metadata lanes, on mounts
    _Atomic uint32_t kill_at;    // the number of that call; 0: none
    _Atomic uint32_t how;
    _Atomic uint32_t torn_bytes;
    _Atomic uint32_t died;       // that call was reached
    char names[4000][8];         // what each call was, for the report
};

static struct page *page;
static const char *plant = "";
static long file_system_type;
static long (*real)(long, ...);

__attribute__((constructor)) static void begin(void) {
    real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (getenv("KVLANE_SEAM_PLANT")) plant = getenv("KVLANE_SEAM_PLANT");
    if (getenv("KVLANE_SEAM_TYPE")) file_system_type = strtol(getenv("KVLANE_SEAM_TYPE"), NULL, 16);
    const char *file = getenv("KVLANE_SEAM");
    int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) page = at;
    close(fd);
}

static int planted(const char *word) { return !strcmp(plant, word); }

static const char *name_of(long number) {
    switch (number) {
    case SYS_openat: return "openat";
    case SYS_openat2: return "openat2";
    case SYS_statx: return "statx";
    case SYS_preadv: return "preadv";
    case SYS_pwritev: return "pwritev";
    case SYS_fsync: return "fsync";
    case SYS_renameat2: return "rename";
    case SYS_linkat: return "link";
    case SYS_unlinkat: return "unlink";
    case SYS_mkdirat: return "mkdir";
    case SYS_close: return "close";
    case SYS_io_submit: return "submit";
    case SYS_io_pgetevents: case SYS_io_getevents: return "collect";
    default: return NULL;
    }
}

static int changes_something(void) {   // a lane that stores or removes
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    return !strncmp(name, "kv-store", 8) || !strncmp(name, "kv-meta", 7);
}

static _Noreturn void die(void) {
    atomic_store(&page->died, 1);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int fewer(const struct iovec *from, int count, size_t bytes, struct iovec *to) {
    int kept = 0;
    for (int i = 0; i < count && bytes; i++) {
        to[kept] = from[i];
        if (to[kept].iov_len > bytes) to[kept].iov_len = bytes;
        bytes -= to[kept++].iov_len;
    }
    return kept;
}

// A part of the write is made, then comes the end. Not through the descriptor's O_DIRECT, which takes whole sectors only.
static _Noreturn void tear(int fd, const struct iovec *parts, int count, off_t offset, size_t bytes) {
    struct iovec less[8];
    int n = fewer(parts, count < 8 ? count : 8, bytes, less);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_DIRECT);
    if (n) pwritev(fd, less, n, offset);
    die();
}

// ---- planted faults ----

static struct { int fd; off_t offset; size_t bytes; char *data; } late = {.fd = -1};

// The write is only remembered: it is made when the name has changed.
static long remember(const struct iovec *parts, int count, int fd, off_t offset) {
    size_t all = 0, at = 0;
    for (int i = 0; i < count; i++) all += parts[i].iov_len;
    late.data = malloc(all);
    for (int i = 0; i < count; i++) memcpy(late.data + at, parts[i].iov_base, parts[i].iov_len), at += parts[i].iov_len;
    late.fd = dup(fd);
    fcntl(late.fd, F_SETFL, fcntl(late.fd, F_GETFL) & ~O_DIRECT);
    late.offset = offset, late.bytes = all;
    return (long)all;
}
static void make_good(void) {
    if (late.fd < 0) return;
    if (pwrite(late.fd, late.data, late.bytes, late.offset) < 0) abort();
    close(late.fd);
    free(late.data);
    late.fd = -1;
}

// "<hex>.<writer>-<n>.tmp" → "<hex>.tmp", the same for everybody.
static const char *shared_name(const char *name, char *to) {
    const char *dot = strchr(name, '.'), *end = strrchr(name, '.');
    if (!dot || !end || strcmp(end, ".tmp") || end - name > 200) return name;
    memcpy(to, name, (size_t)(dot - name));
    strcpy(to + (dot - name), ".tmp");
    return to;
}

static int is_directory(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISDIR(found.st_mode);
}

static long perform(long number, long *a) {
    char one[256], two[256];
    struct open_how how;
    if (planted("shared-temporary")) {
        if (number == SYS_openat2) {
            memcpy(&how, (const void *)a[2], sizeof how);
            if (how.flags & O_CREAT) how.flags &= ~(uint64_t)O_EXCL, a[1] = (long)shared_name((const char *)a[1], one), a[2] = (long)&how;
        }
        if (number == SYS_renameat2) a[1] = (long)shared_name((const char *)a[1], one), a[3] = (long)shared_name((const char *)a[3], two);
        if (number == SYS_unlinkat) a[1] = (long)shared_name((const char *)a[1], one);
    }
    if (planted("no-fsync") && number == SYS_fsync) return 0;
    if (planted("no-directory-fsync") && number == SYS_fsync && is_directory((int)a[0])) return 0;
    if (planted("late-write") && number == SYS_pwritev) return remember((const struct iovec *)a[1], (int)a[2], (int)a[0], a[3]);
    long result = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_fstatfs && result == 0 && file_system_type) ((struct statfs *)a[1])->f_type = file_system_type;
    return result;
}

long syscall(long number, ...) {
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    const char *name = name_of(number);
    if (!name || !page || !changes_something()) return perform(number, a);
    // Waiting for aio is no step: how often it is done is a matter of time.
    uint32_t at = number == SYS_io_pgetevents || number == SYS_io_getevents ? 0 : atomic_fetch_add(&page->calls, 1) + 1;
    if (at && at < 4000) strncpy(page->names[at], name, 7);
    int how = at && at == atomic_load(&page->kill_at) ? (int)atomic_load(&page->how) : 0;
    if (how == BEFORE) die();
    if (how == TORN && number == SYS_pwritev) tear((int)a[0], (const struct iovec *)a[1], (int)a[2], a[3], atomic_load(&page->torn_bytes));
    if (how == TORN && number == SYS_io_submit) {
        const struct iocb *request = *(struct iocb **)a[2];
        if (request->aio_lio_opcode == IOCB_CMD_PWRITEV)
            tear((int)request->aio_fildes, (const struct iovec *)request->aio_buf, (int)request->aio_nbytes, request->aio_offset, atomic_load(&page->torn_bytes));
    }
    long result = perform(number, a);
    int error = errno;
    if (how) die();
    if (number == SYS_renameat2) make_good();
    errno = error;
    return result;
}
