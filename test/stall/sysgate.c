// sysgate: the same gates without root, FUSE or devices. System calls of one command on files below a directory are held by
// seccomp user notification until they are resumed.
//
//   sysgate --control SOCKET --under DIR -- CMD ARG…       rules: gate.h; one line in, one JSON line out, on SOCKET
//
// Surprising: CMD keeps this process's pid, parent and descriptors; a supervisor, forked twice so that CMD has no child it does not
// know, answers for its system calls and leaves when CMD and all its children are gone. A held call is a really blocked thread,
// but SIGKILL ends it: this proves time limits, never anything about unkillable threads or late DMA.
// when=after and rate do not work here (the call itself belongs to the kernel), and io_uring is not seen.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "gate.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)   // Linux 5.19; without it a signal may restart a held call
#endif
#if defined __x86_64__
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

// Where a call names its file: descriptor in argument 0 · directory and path in 0 and 1 · the same, and again in 2 and 3 · path in
// argument 0 · control blocks of io_submit
enum where { BY_FD, BY_AT, BY_TWO_AT, BY_PATH, BY_IOCBS };
static const struct call { int number; enum op_class op; enum where where; } calls[] = {
    {SYS_openat, OP_OPEN, BY_AT},          {SYS_openat2, OP_OPEN, BY_AT},
    {SYS_read, OP_READ, BY_FD},            {SYS_pread64, OP_READ, BY_FD},       {SYS_readv, OP_READ, BY_FD},
    {SYS_preadv, OP_READ, BY_FD},          {SYS_preadv2, OP_READ, BY_FD},       {SYS_getdents64, OP_READ, BY_FD},
    {SYS_write, OP_WRITE, BY_FD},          {SYS_pwrite64, OP_WRITE, BY_FD},     {SYS_writev, OP_WRITE, BY_FD},
    {SYS_pwritev, OP_WRITE, BY_FD},        {SYS_pwritev2, OP_WRITE, BY_FD},     {SYS_ftruncate, OP_WRITE, BY_FD},
    {SYS_fallocate, OP_WRITE, BY_FD},      {SYS_fsync, OP_FSYNC, BY_FD},        {SYS_fdatasync, OP_FSYNC, BY_FD},
    {SYS_newfstatat, OP_GETATTR, BY_AT},   {SYS_statx, OP_GETATTR, BY_AT},      {SYS_fstat, OP_GETATTR, BY_FD},
    {SYS_fstatfs, OP_GETATTR, BY_FD},      {SYS_faccessat, OP_GETATTR, BY_AT},  {SYS_readlinkat, OP_GETATTR, BY_AT},
    {SYS_renameat2, OP_RENAME, BY_TWO_AT}, {SYS_linkat, OP_RENAME, BY_TWO_AT},  {SYS_mkdirat, OP_MKDIR, BY_AT},
    {SYS_unlinkat, OP_UNLINK, BY_AT},      {SYS_close, OP_CLOSE, BY_FD},        {SYS_io_submit, OP_READ, BY_IOCBS},
#ifdef SYS_renameat
    {SYS_renameat, OP_RENAME, BY_TWO_AT},
#endif
#ifdef SYS_open
    {SYS_open, OP_OPEN, BY_PATH},          {SYS_stat, OP_GETATTR, BY_PATH},     {SYS_lstat, OP_GETATTR, BY_PATH},
    {SYS_access, OP_GETATTR, BY_PATH},     {SYS_rename, OP_RENAME, BY_PATH},    {SYS_mkdir, OP_MKDIR, BY_PATH},
    {SYS_rmdir, OP_UNLINK, BY_PATH},       {SYS_unlink, OP_UNLINK, BY_PATH},
#endif
};
enum { CALLS = sizeof calls / sizeof *calls, CLIENTS_MAX = 8, IOCBS_MAX = 256 };

struct held_call { struct held held; uint64_t id; };

static char under[4096];
static int notify = -1;

// ---- reading the caller's mind: its arguments, out of its memory -----------------------------------------------------------

static bool peek(pid_t tid, uint64_t address, void *to, size_t size) {
    struct iovec here = {to, size}, there = {(void *)(uintptr_t)address, size};
    return process_vm_readv(tid, &here, 1, &there, 1, 0) == (ssize_t)size;
}

static bool peek_string(pid_t tid, uint64_t address, char *to, size_t max) {
    for (size_t at = 0; at + 64 <= max; at += 64) {          // 64 at a time, never across a page that may not be there
        size_t first = 64 - (address + at) % 64;
        if (!peek(tid, address + at, to + at, first)) return false;
        if (memchr(to + at, 0, first)) return true;
        at -= 64 - first;
    }
    return false;
}

// tid, not pid: a thread may have left the shared descriptor table.
static bool path_of_fd(pid_t tid, int fd, char *to, size_t max) {
    char link[64];
    if (fd == AT_FDCWD) snprintf(link, sizeof link, "/proc/%d/cwd", tid);
    else snprintf(link, sizeof link, "/proc/%d/fd/%d", tid, fd);
    ssize_t n = readlink(link, to, max - 1);
    if (n > 0) to[n] = 0;
    return n > 0;
}

static bool path_at(pid_t tid, int dir, uint64_t name, char *to, size_t max) {
    char text[4096];
    if (!peek_string(tid, name, text, sizeof text)) return false;
    if (text[0] == '/') return snprintf(to, max, "%s", text) > 0;
    if (!path_of_fd(tid, dir, to, max)) return false;
    size_t have = strlen(to);
    if (text[0]) snprintf(to + have, max - have, "/%s", text);
    return true;
}

static const char *below(const char *path) {   // NULL: not in our directory
    size_t n = strlen(under);
    if (strncmp(path, under, n) || (path[n] != '/' && path[n])) return NULL;
    return path[n] ? path + n : "/";
}

static bool any_rule(enum op_class op) {
    for (const struct rule *r = gate.rules; r; r = r->next)
        if (r->classes >> op & 1) return true;
    return false;
}

static enum op_class op_of_iocb(const struct iocb *cb) {
    switch (cb->aio_lio_opcode) {
    case IOCB_CMD_PWRITE: case IOCB_CMD_PWRITEV: return OP_WRITE;
    case IOCB_CMD_FSYNC: case IOCB_CMD_FDSYNC: return OP_FSYNC;
    default: return OP_READ;
    }
}

static struct decision decide(const struct seccomp_notif *n, const struct call *call, enum op_class *op) {
    static char path[8192], other[8192];
    const struct decision go = {.what = GO};
    const pid_t tid = (pid_t)n->pid;
    const __u64 *arg = n->data.args;
    const char *second = NULL;
    *op = call->op;
    if (call->where == BY_IOCBS) {   // held as a whole if a rule fits one of them
        for (uint64_t i = 0; i < arg[1] && i < IOCBS_MAX; i++) {
            uint64_t at;
            struct iocb cb;
            if (!peek(tid, arg[2] + 8 * i, &at, sizeof at) || !peek(tid, at, &cb, sizeof cb)) break;
            *op = op_of_iocb(&cb);
            const char *p = any_rule(*op) && path_of_fd(tid, (int)cb.aio_fildes, path, sizeof path) ? below(path) : NULL;
            struct decision d = p ? gate_decide(*op, p, NULL, false, 0) : go;
            if (d.what != GO) return d;
        }
        return go;
    }
    if (!any_rule(*op)) return go;
    bool known = call->where == BY_FD     ? path_of_fd(tid, (int)arg[0], path, sizeof path)
                 : call->where == BY_PATH ? path_at(tid, AT_FDCWD, arg[0], path, sizeof path)
                                          : path_at(tid, (int)arg[0], arg[1], path, sizeof path);
    if (call->where == BY_TWO_AT && path_at(tid, (int)arg[2], arg[3], other, sizeof other)) second = below(other);
    const char *first = known ? below(path) : NULL;
    return first || second ? gate_decide(*op, first, second, false, 0) : go;
}

static void answer(uint64_t id, int error) {
    struct seccomp_notif_resp r = {.id = id, .error = -error, .flags = error ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    ioctl(notify, SECCOMP_IOCTL_NOTIF_SEND, &r);   // ENOENT: the caller was killed meanwhile
}

static void one_call(void) {
    struct seccomp_notif n = {0};
    if (ioctl(notify, SECCOMP_IOCTL_NOTIF_RECV, &n)) return;
    const struct call *call = calls;
    while (call < calls + CALLS && call->number != n.data.nr) call++;
    enum op_class op = OP_OPEN;
    struct decision d = {.what = GO};
    if (call < calls + CALLS) d = decide(&n, call, &op);
    if (d.what != HOLD) return answer(n.id, d.what == FAIL ? d.error : 0);
    struct held_call *h = calloc(1, sizeof *h);
    h->id = n.id;
    gate_hold(&h->held, op, d);
}

// ---- the supervisor ------------------------------------------------------------------------------------------------------

struct client { int fd; size_t have; char line[512]; };

static void command(char *line, int to) {
    char *word[12], *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    int words = split_words(line, word, 12);
    if (!words) refuse(out, "empty command", "");
    else if (!strcmp(word[0], "status")) put_status(out), fputs("}\n", out);
    else if (!strcmp(word[0], "rate") || (words > 2 && !strcmp(word[words - 1], "when=after")))
        refuse(out, "rate and when=after need a mount (stall.py up)", "");
    else if (!gate_command(word, words, out)) refuse(out, "want hang delay fail resume status; got ", word[0]);
    fclose(out);
    (void)!send(to, text, size, MSG_NOSIGNAL | MSG_DONTWAIT);   // a client that does not read gets no answer
    free(text);
}

static bool serve_client(struct client *c) {
    ssize_t n = recv(c->fd, c->line + c->have, sizeof c->line - 1 - c->have, MSG_DONTWAIT);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    c->have += (size_t)n;
    c->line[c->have] = 0;
    for (char *end; (end = strchr(c->line, '\n'));) {
        *end = 0;
        command(c->line, c->fd);
        c->have -= (size_t)(end + 1 - c->line);
        memmove(c->line, end + 1, c->have + 1);
    }
    return c->have < sizeof c->line - 1;
}

static int supervise(int listener) {
    static struct client clients[CLIENTS_MAX];
    for (int i = 0; i < CLIENTS_MAX; i++) clients[i].fd = -1;
    for (;;) {
        struct pollfd p[2 + CLIENTS_MAX] = {{.fd = notify, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
        for (int i = 0; i < CLIENTS_MAX; i++) p[2 + i] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
        poll(p, 2 + CLIENTS_MAX, gate_poll_ms());
        if (p[0].revents & POLLIN) one_call();
        else if (p[0].revents & (POLLHUP | POLLERR)) return 0;   // nobody with this filter is left
        for (struct held *h; (h = gate_take_due());) answer(((struct held_call *)h)->id, h->error), free(h);
        for (int i = 0; i < CLIENTS_MAX; i++)
            if (clients[i].fd >= 0 && p[2 + i].revents && !serve_client(&clients[i])) close(clients[i].fd), clients[i].fd = -1;
        if (!(p[1].revents & POLLIN)) continue;
        for (int i = 0; i < CLIENTS_MAX; i++)
            if (clients[i].fd < 0) {
                clients[i] = (struct client){.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)};
                break;
            }
    }
}

static int pass_fd(int to, int fd) {
    char space[CMSG_SPACE(sizeof fd)] = {0}, byte = 0;
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return sendmsg(to, &m, 0) == 1 ? 0 : -1;
}

static int take_fd(int from) {
    char space[CMSG_SPACE(sizeof(int))], byte;
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    int fd = -1;
    if (recvmsg(from, &m, 0) == 1 && CMSG_FIRSTHDR(&m)) memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    return fd;
}

// In the supervisor: keep nothing of CMD's (its pipes must end when it ends), then serve.
static void become_supervisor(int pair, int listener) {
    pid_t me = getpid();
    if (write(pair, &me, sizeof me) != sizeof me || (notify = take_fd(pair)) < 0) _exit(1);
    setsid();
    signal(SIGPIPE, SIG_IGN);
    int high[2] = {fcntl(notify, F_DUPFD, 100), fcntl(listener, F_DUPFD, 100)};   // first out of the way of 3 and 4
    notify = dup2(high[0], 3);
    listener = dup2(high[1], 4);
    close_range(5, ~0U, 0);
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    (void)!chdir("/");
    _exit(supervise(listener));
}

static int install_filter(void) {   // every listed call asks; the rest runs untouched
    struct sock_filter f[CALLS + 6];
    unsigned short n = 0;
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 0, CALLS + 1);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < CALLS; i++)
        f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i].number, (unsigned char)(CALLS - i), 0);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {n, f};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -1;
    int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (fd < 0 && errno == EINVAL) fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    return fd;
}

static int fail(const char *what) {
    fprintf(stderr, "sysgate: %s: %s\n", what, strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    const char *control = NULL, *dir = NULL;
    int at = 1;
    for (; at + 1 < argc && strcmp(argv[at], "--"); at += 2) {
        if (!strcmp(argv[at], "--control")) control = argv[at + 1];
        else if (!strcmp(argv[at], "--under")) dir = argv[at + 1];
        else if (!strcmp(argv[at], "--max-hang")) gate.max_hang_s = atof(argv[at + 1]);
        else break;
    }
    if (!control || !dir || at + 1 >= argc || strcmp(argv[at], "--"))
        return fprintf(stderr, "usage: sysgate --control SOCKET --under DIR [--max-hang S] -- CMD ARG...\n"), 2;
    if (!realpath(dir, under)) return fail(dir);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(control) >= sizeof a.sun_path) return fprintf(stderr, "sysgate: --control: longer than %zu bytes\n", sizeof a.sun_path - 1), 2;
    strcpy(a.sun_path, control);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), pair[2];
    if (listener < 0 || bind(listener, (void *)&a, sizeof a) || listen(listener, 16)) return fail(control);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return fail("socketpair");

    pid_t middle = fork(), supervisor;
    if (middle < 0) return fail("fork");
    if (!middle) {
        if (!fork()) close(pair[1]), become_supervisor(pair[0], listener);
        _exit(0);
    }
    waitpid(middle, NULL, 0);
    if (read(pair[1], &supervisor, sizeof supervisor) != sizeof supervisor) return fail("supervisor");
    prctl(PR_SET_PTRACER, (unsigned long)supervisor, 0, 0, 0);   // lets it read our memory where Yama is strict
    int fd = install_filter();
    if (fd < 0) return fail("seccomp");
    if (pass_fd(pair[1], fd)) return 1;   // from here on a listed call waits for the supervisor
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    execvp(argv[at + 1], argv + at + 1);
    return fail(argv[at + 1]);
}
