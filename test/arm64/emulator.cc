// emulator.cc — what Debian 12's qemu-user lacks, linked into the arm64 test program only; native/core/test/lying_kernel.cc calls it.
//
// openat2 is ENOSYS there. Here the names are walked one by one, which a hostile directory could race; the tests' own directories do not.
// RESOLVE_CACHED is taken for known. statx passes the kernel's mask on, but not the fields behind it that tell how O_DIRECT
// must be aligned: the bit is taken out, as on a kernel that does not know. Everything else reaches the emulator as it is.
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

namespace {

constexpr unsigned direct_align_mask = 0x2000;  // STATX_DIOALIGN, from Linux 6.1

int refuse(int error) {
    errno = error;
    return -1;
}

long open_by_steps(int directory, const char* path, const open_how& how) {
    if (*path == '\0') return refuse(ENOENT);
    if (*path == '/') return refuse(EXDEV);
    int at = dup(directory);
    if (at < 0) return -1;
    for (const char* rest = path; at >= 0;) {
        const char* end = rest;
        while (*end != '\0' && *end != '/') end++;
        const std::string name(rest, end);
        while (*end == '/') end++;
        const bool last = *end == '\0';
        int next = -1;
        struct stat found {};
        if (name == "..") errno = EXDEV;
        else if (fstatat(at, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(found.st_mode)) errno = (how.flags & O_EXCL) != 0 ? EEXIST : ELOOP;
        else if (last) next = openat(at, name.c_str(), static_cast<int>(how.flags) | O_NOFOLLOW, static_cast<mode_t>(how.mode));
        else next = openat(at, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        const int error = errno;
        close(at);
        errno = error;
        if (last) return next;
        at = next;
        rest = end;
    }
    return -1;
}

}  // namespace

extern "C" {
long __real_syscall(long number, ...);

long kvlane_emulated_syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long words[6];
    for (long& word : words) word = va_arg(list, long);  // as the C library does: what was not passed is not looked at
    va_end(list);
    if (number == SYS_openat2) {
        return open_by_steps(static_cast<int>(words[0]), reinterpret_cast<const char*>(words[1]), *reinterpret_cast<const open_how*>(words[2]));
    }
    const long result = __real_syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    if (number == SYS_statx && result == 0) reinterpret_cast<struct statx*>(words[4])->stx_mask &= ~direct_align_mask;
    return result;
}
}
