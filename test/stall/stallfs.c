// stallfs: a FUSE file system that passes everything through to a directory, with a gate in front of every operation.
//
//   stallfs MNT BACK MAX_HANG_S LAB_DIR [MOUNTS_ON_IT …]    commands on stdin, one JSON line each on stdout (gate.h); started
//                                                           by keeper.py, never by hand
//   beside the rules: stop (read no more requests: nothing is taken out of a caller's buffer) · cont · abort (break the
//   connection: every stuck caller gets an error) · quit · short BYTES (one read brings no more of a file; whole pages; until `resume`
//   or short 0. Not of the loop device's, which has no word for it; not writes: FUSE makes EIO of a short direct one)
//
// Surprising: it speaks the kernel's FUSE protocol itself, with one thread and no library. A held request is a list entry
// and not a blocked thread, so thousands may be stuck at once; and "stop" is exact, since nothing else reads requests.
// When stdin ends, its keeper is gone: it opens all gates, unmounts what is left, removes the lab's directory and leaves.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>
#include "gate.h"

enum {
    TRANSFER_MAX = 1 << 20,   // bytes of one read or write; the kernel allows 256 pages
    BACKGROUND_MAX = 16384,   // async requests under way; the kernel's own default of 12 would hide every larger stall
    REQUEST_MAX = TRANSFER_MAX + 16384,
};
#define IMAGE "disk.img"      // the loop device's file. A block device has no attributes and no name: they stay cached and are
#define IMAGE_CACHE_S 86400   // never held, only its reads, writes and flushes are

struct node { uint64_t ino, lookups; int fd; bool image; struct node *next; };

struct pending {              // a request that waits: before its operation (answer_len 0) or after it
    struct held held;
    bool finished;
    int error;                // of the finished operation
    size_t request_len, answer_len;
    char *request, *answer;
};

static int dev = -1;
static bool stopped;
static size_t short_bytes;    // 0: whatever is asked for
static struct node root = {.ino = FUSE_ROOT_ID, .lookups = 1, .fd = -1};
static struct node *nodes[4096];
static char answer_buf[TRANSFER_MAX];   // what the operation in hand answers

// ---- nodes: one O_PATH descriptor for every inode the kernel knows ---------------------------------------------------

static struct node *node_of(uint64_t id) { return id == FUSE_ROOT_ID ? &root : (struct node *)(uintptr_t)id; }
static uint64_t id_of(const struct node *n) { return n == &root ? FUSE_ROOT_ID : (uint64_t)(uintptr_t)n; }

struct proc_path { char text[40]; };
static struct proc_path reopen_path(const struct node *n) {
    struct proc_path p;
    snprintf(p.text, sizeof p.text, "/proc/self/fd/%d", n->fd);
    return p;
}

// The path below the mount, as the kernel knows it now: renames need no bookkeeping here.
static void path_of(const struct node *n, const char *name, char *to, size_t max) {
    char base[4096], full[4096];
    ssize_t b = readlink(reopen_path(&root).text, base, sizeof base - 1), f = readlink(reopen_path(n).text, full, sizeof full - 1);
    size_t cut = b > 1 ? (size_t)b : 0;
    full[f < 0 ? 0 : f] = 0;
    const char *below = (size_t)(f < 0 ? 0 : f) >= cut ? full + cut : "";
    snprintf(to, max, "%s%s%s", below, name ? "/" : *below ? "" : "/", name ? name : "");
    char *mark = strstr(to, " (deleted)");
    if (mark) *mark = 0;
}

static int find_node(struct node *parent, const char *name, struct node **found) {
    int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0) return errno;
    if (fstat(fd, &st)) { int e = errno; close(fd); return e; }
    struct node **slot = &nodes[st.st_ino % 4096];
    for (struct node *n = *slot; n; n = n->next)
        if (n->ino == st.st_ino) return close(fd), n->lookups++, *found = n, 0;
    struct node *n = malloc(sizeof *n);
    *n = (struct node){.ino = st.st_ino, .lookups = 1, .fd = fd, .image = parent == &root && !strcmp(name, IMAGE), .next = *slot};
    return *slot = n, *found = n, 0;
}

static void forget(uint64_t id, uint64_t count) {
    struct node *n = node_of(id);
    if (n == &root || (n->lookups -= count)) return;
    struct node **at = &nodes[n->ino % 4096];
    while (*at != n) at = &(*at)->next;
    *at = n->next;
    close(n->fd);
    free(n);
}

// ---- answers ---------------------------------------------------------------------------------------------------------

static void send_answer(uint64_t unique, int error, const void *data, size_t len) {
    struct fuse_out_header h = {.len = (uint32_t)(sizeof h + (error ? 0 : len)), .error = -error, .unique = unique};
    struct iovec v[2] = {{&h, sizeof h}, {(void *)(uintptr_t)data, len}};
    if (dev >= 0 && writev(dev, v, error || !len ? 1 : 2) < 0 && errno != ENOENT && errno != ENODEV)   // ENOENT: caller is gone
        fprintf(stderr, "stallfs: answer of %zu bytes refused: %s\n", len, strerror(errno));
}

static void fill_attr(struct fuse_attr *a, const struct stat *s) {
    *a = (struct fuse_attr){.ino = s->st_ino, .size = (uint64_t)s->st_size, .blocks = (uint64_t)s->st_blocks,
        .atime = (uint64_t)s->st_atim.tv_sec, .atimensec = (uint32_t)s->st_atim.tv_nsec,
        .mtime = (uint64_t)s->st_mtim.tv_sec, .mtimensec = (uint32_t)s->st_mtim.tv_nsec,
        .ctime = (uint64_t)s->st_ctim.tv_sec, .ctimensec = (uint32_t)s->st_ctim.tv_nsec,
        .mode = s->st_mode, .nlink = (uint32_t)s->st_nlink, .uid = s->st_uid, .gid = s->st_gid,
        .rdev = (uint32_t)s->st_rdev, .blksize = (uint32_t)s->st_blksize};
}

static int answer_attr(struct node *n, size_t *len) {
    struct stat st;
    if (fstatat(n->fd, "", &st, AT_EMPTY_PATH)) return errno;
    struct fuse_attr_out *out = (void *)answer_buf;
    *out = (struct fuse_attr_out){.attr_valid = n->image ? IMAGE_CACHE_S : 0};
    fill_attr(&out->attr, &st);
    *len = sizeof *out;
    return 0;
}

static int answer_entry(struct node *parent, const char *name, size_t *len) {
    struct node *n = NULL;
    struct stat st;
    int e = find_node(parent, name, &n);
    if (e) return e;
    if (fstatat(n->fd, "", &st, AT_EMPTY_PATH)) { e = errno; forget(id_of(n), 1); return e; }
    struct fuse_entry_out *out = (void *)answer_buf;
    uint64_t cache = n->image ? IMAGE_CACHE_S : 0;
    *out = (struct fuse_entry_out){.nodeid = id_of(n), .entry_valid = cache, .attr_valid = cache};
    fill_attr(&out->attr, &st);
    *len = sizeof *out;
    return 0;
}

// Directories and files are made by us, but belong to whoever asked.
static int made(struct node *parent, const char *name, const struct fuse_in_header *h, size_t *len) {
    if (h->uid || h->gid) (void)!fchownat(parent->fd, name, h->uid, h->gid, AT_SYMLINK_NOFOLLOW);
    return answer_entry(parent, name, len);
}

// ---- operations: each returns an errno, or 0 with its answer in answer_buf ---------------------------------------------

static int do_init(const struct fuse_init_in *in, size_t *len) {
    struct fuse_init_out *out = (void *)answer_buf;
    const uint32_t want = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
                          FUSE_AUTO_INVAL_DATA;
    *out = (struct fuse_init_out){.major = FUSE_KERNEL_VERSION,
        .minor = in->minor < FUSE_KERNEL_MINOR_VERSION ? in->minor : FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = in->max_readahead, .flags = in->flags & want, .max_background = BACKGROUND_MAX,
        .congestion_threshold = BACKGROUND_MAX, .max_write = TRANSFER_MAX, .time_gran = 1, .max_pages = TRANSFER_MAX / 4096};
    *len = sizeof *out;
    return 0;
}

static int do_setattr(struct node *n, const struct fuse_setattr_in *in, size_t *len) {
    const struct proc_path reopen = reopen_path(n);
    const char *path = reopen.text;
    if (in->valid & FATTR_MODE && chmod(path, in->mode & 07777)) return errno;
    if (in->valid & (FATTR_UID | FATTR_GID) &&
        fchownat(n->fd, "", in->valid & FATTR_UID ? in->uid : (uid_t)-1, in->valid & FATTR_GID ? in->gid : (gid_t)-1, AT_EMPTY_PATH))
        return errno;
    if (in->valid & FATTR_SIZE && truncate(path, (off_t)in->size)) return errno;
    if (in->valid & (FATTR_ATIME | FATTR_MTIME)) {
        struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
        if (in->valid & FATTR_ATIME_NOW) t[0].tv_nsec = UTIME_NOW;
        else if (in->valid & FATTR_ATIME) t[0] = (struct timespec){(time_t)in->atime, in->atimensec};
        if (in->valid & FATTR_MTIME_NOW) t[1].tv_nsec = UTIME_NOW;
        else if (in->valid & FATTR_MTIME) t[1] = (struct timespec){(time_t)in->mtime, in->mtimensec};
        if (utimensat(AT_FDCWD, path, t, 0)) return errno;
    }
    return answer_attr(n, len);
}

static int answer_open(uint64_t handle, uint32_t how, size_t *len) {
    struct fuse_open_out *out = (void *)(answer_buf + *len);
    *out = (struct fuse_open_out){.fh = handle, .open_flags = how};
    *len += sizeof *out;
    return 0;
}

static int do_open(struct node *n, uint32_t flags, size_t *len) {
    int fd = open(reopen_path(n).text, ((int)flags & ~(O_CREAT | O_EXCL | O_NOFOLLOW | O_DIRECT | O_SYNC | O_DSYNC)) | O_CLOEXEC);
    // Else the kernel reads on through its page cache after a short direct read, and takes what is short there for zeros.
    uint32_t how = (int)flags & O_DIRECT && !n->image ? FOPEN_DIRECT_IO : 0;
    return fd < 0 ? errno : answer_open((uint64_t)fd, how, len);
}

static int do_create(struct node *n, const struct fuse_in_header *h, const struct fuse_create_in *in, const char *name, size_t *len) {
    int fd = openat(n->fd, name, ((int)in->flags & ~(O_NOFOLLOW | O_DIRECT | O_SYNC | O_DSYNC)) | O_CREAT | O_CLOEXEC, in->mode & 07777);
    if (fd < 0) return errno;
    int e = made(n, name, h, len);
    if (e) return close(fd), e;
    return answer_open((uint64_t)fd, 0, len);
}

static int do_opendir(struct node *n, size_t *len) {
    int fd = openat(n->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    return d ? answer_open((uint64_t)(uintptr_t)d, 0, len) : errno;
}

static int do_readdir(const struct fuse_read_in *in, size_t *len) {
    DIR *d = (DIR *)(uintptr_t)in->fh;
    if (in->offset) seekdir(d, (long)in->offset);
    else rewinddir(d);
    for (struct dirent *e; (e = readdir(d));) {
        size_t name = strlen(e->d_name), size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name);
        if (*len + size > in->size) break;
        struct fuse_dirent *out = (void *)(answer_buf + *len);
        *out = (struct fuse_dirent){.ino = e->d_ino, .off = (uint64_t)telldir(d), .namelen = (uint32_t)name, .type = e->d_type};
        memset(out->name, 0, size - FUSE_NAME_OFFSET);
        memcpy(out->name, e->d_name, name);
        *len += size;
    }
    return 0;
}

static int do_read(const struct node *node, const struct fuse_read_in *in, size_t *len) {
    size_t most = short_bytes && !node->image ? short_bytes : TRANSFER_MAX;
    ssize_t n = pread((int)in->fh, answer_buf, in->size < most ? in->size : most, (off_t)in->offset);
    return n < 0 ? errno : (*len = (size_t)n, 0);
}

static int do_write(const struct fuse_write_in *in, size_t *len) {
    ssize_t n = pwrite((int)in->fh, in + 1, in->size, (off_t)in->offset);
    if (n < 0) return errno;
    *(struct fuse_write_out *)(void *)answer_buf = (struct fuse_write_out){.size = (uint32_t)n};
    *len = sizeof(struct fuse_write_out);
    return 0;
}

static int do_statfs(size_t *len) {
    struct statvfs s;
    if (fstatvfs(root.fd, &s)) return errno;
    struct fuse_statfs_out *out = (void *)answer_buf;
    *out = (struct fuse_statfs_out){.st = {.blocks = s.f_blocks, .bfree = s.f_bfree, .bavail = s.f_bavail, .files = s.f_files,
        .ffree = s.f_ffree, .bsize = (uint32_t)s.f_bsize, .namelen = 255, .frsize = (uint32_t)s.f_frsize}};
    *len = sizeof *out;
    return 0;
}

static int do_readlink(struct node *n, size_t *len) {
    ssize_t r = readlinkat(n->fd, "", answer_buf, 4096);
    return r < 0 ? errno : (*len = (size_t)r, 0);
}

#define CALL(call) ((call) < 0 ? errno : 0)
static int operate(const struct fuse_in_header *h, size_t *len) {
    struct node *n = node_of(h->nodeid);
    const void *in = h + 1;
    const char *name = in;
    *len = 0;
    switch (h->opcode) {
    case FUSE_INIT: return do_init(in, len);
    case FUSE_LOOKUP: return answer_entry(n, name, len);
    case FUSE_GETATTR: return answer_attr(n, len);
    case FUSE_SETATTR: return do_setattr(n, in, len);
    case FUSE_READLINK: return do_readlink(n, len);
    case FUSE_STATFS: return do_statfs(len);
    case FUSE_OPEN: return do_open(n, ((const struct fuse_open_in *)in)->flags, len);
    case FUSE_CREATE: return do_create(n, h, in, name + sizeof(struct fuse_create_in), len);
    case FUSE_OPENDIR: return do_opendir(n, len);
    case FUSE_READDIR: return do_readdir(in, len);
    case FUSE_READ: return do_read(n, in, len);
    case FUSE_WRITE: return do_write(in, len);
    case FUSE_FALLOCATE: {
        const struct fuse_fallocate_in *f = in;
        return CALL(fallocate((int)f->fh, (int)f->mode, (off_t)f->offset, (off_t)f->length));
    }
    case FUSE_FSYNC: case FUSE_FSYNCDIR: case FUSE_FLUSH: return 0;   // the backing store is memory; only the gate matters
    case FUSE_RELEASE: return CALL(close((int)((const struct fuse_release_in *)in)->fh));
    case FUSE_RELEASEDIR: return CALL(closedir((DIR *)(uintptr_t)((const struct fuse_release_in *)in)->fh));
    case FUSE_UNLINK: return CALL(unlinkat(n->fd, name, 0));
    case FUSE_RMDIR: return CALL(unlinkat(n->fd, name, AT_REMOVEDIR));
    case FUSE_RENAME: {
        const struct fuse_rename_in *r = in;
        const char *from = (const char *)(r + 1);
        return CALL(renameat(n->fd, from, node_of(r->newdir)->fd, from + strlen(from) + 1));
    }
    case FUSE_RENAME2: {
        const struct fuse_rename2_in *r = in;
        const char *from = (const char *)(r + 1);
        return CALL(renameat2(n->fd, from, node_of(r->newdir)->fd, from + strlen(from) + 1, r->flags));
    }
    case FUSE_LINK: {
        const struct fuse_link_in *l = in;
        const char *to = (const char *)(l + 1);
        if (linkat(AT_FDCWD, reopen_path(node_of(l->oldnodeid)).text, n->fd, to, AT_SYMLINK_FOLLOW)) return errno;
        return answer_entry(n, to, len);
    }
    case FUSE_MKDIR: {
        const struct fuse_mkdir_in *m = in;
        return mkdirat(n->fd, (const char *)(m + 1), m->mode & 07777) ? errno : made(n, (const char *)(m + 1), h, len);
    }
    case FUSE_MKNOD: {
        const struct fuse_mknod_in *m = in;
        return mknodat(n->fd, (const char *)(m + 1), m->mode, m->rdev) ? errno : made(n, (const char *)(m + 1), h, len);
    }
    case FUSE_SYMLINK: return symlinkat(name + strlen(name) + 1, n->fd, name) ? errno : made(n, name, h, len);
    default: return ENOSYS;   // the kernel then does without, or says so to the caller
    }
}

// ---- the gate --------------------------------------------------------------------------------------------------------

static int class_of(const struct fuse_in_header *h) {   // -1: never gated
    switch (h->opcode) {
    case FUSE_READ: case FUSE_READDIR: return OP_READ;
    case FUSE_WRITE: case FUSE_FALLOCATE: return OP_WRITE;
    case FUSE_FSYNC: case FUSE_FSYNCDIR: return OP_FSYNC;
    default: break;
    }
    if (!h->nodeid || node_of(h->nodeid)->image) return -1;   // INIT and the like have no node
    switch (h->opcode) {
    case FUSE_OPEN: case FUSE_CREATE: case FUSE_OPENDIR: return OP_OPEN;
    case FUSE_LOOKUP: return OP_LOOKUP;
    case FUSE_GETATTR: case FUSE_READLINK: case FUSE_STATFS: return OP_GETATTR;
    case FUSE_SETATTR: return ((const struct fuse_setattr_in *)(const void *)(h + 1))->valid & FATTR_SIZE ? OP_WRITE : OP_GETATTR;
    case FUSE_RENAME: case FUSE_RENAME2: case FUSE_LINK: return OP_RENAME;
    case FUSE_MKDIR: case FUSE_MKNOD: case FUSE_SYMLINK: return OP_MKDIR;
    case FUSE_UNLINK: case FUSE_RMDIR: return OP_UNLINK;
    case FUSE_FLUSH: return OP_CLOSE;
    default: return -1;
    }
}

static size_t bytes_of(const struct fuse_in_header *h) {
    const void *in = h + 1;
    return h->opcode == FUSE_READ ? ((const struct fuse_read_in *)in)->size : h->opcode == FUSE_WRITE ? ((const struct fuse_write_in *)in)->size : 0;
}

static void paths_of(const struct fuse_in_header *h, char *path, char *other, size_t max) {
    struct node *n = node_of(h->nodeid);
    const char *in = (const char *)(h + 1), *name = NULL;
    uint64_t newdir = h->nodeid;
    *other = 0;
    switch (h->opcode) {
    case FUSE_LOOKUP: case FUSE_UNLINK: case FUSE_RMDIR: case FUSE_SYMLINK: name = in; break;
    case FUSE_CREATE: name = in + sizeof(struct fuse_create_in); break;
    case FUSE_MKDIR: name = in + sizeof(struct fuse_mkdir_in); break;
    case FUSE_MKNOD: name = in + sizeof(struct fuse_mknod_in); break;
    case FUSE_LINK: name = in + sizeof(struct fuse_link_in); break;
    case FUSE_RENAME: name = in + sizeof(struct fuse_rename_in); newdir = ((const struct fuse_rename_in *)(const void *)in)->newdir; break;
    case FUSE_RENAME2: name = in + sizeof(struct fuse_rename2_in); newdir = ((const struct fuse_rename2_in *)(const void *)in)->newdir; break;
    default: break;
    }
    path_of(n, name, path, max);
    if (h->opcode == FUSE_RENAME || h->opcode == FUSE_RENAME2) path_of(node_of(newdir), name + strlen(name) + 1, other, max);
}

static char *copy_of(const void *data, size_t len) {
    char *p = malloc(len ? len : 1);
    if (!p) { fprintf(stderr, "stallfs: no memory for a held request\n"); exit(1); }
    return memcpy(p, data, len);
}

// Whether the operation (after: its answer, in answer_buf) must wait. True: it is in the list now.
static bool waits(const struct fuse_in_header *h, bool after, int *error, size_t len) {
    int op = class_of(h);
    if (op < 0) return false;
    char path[8192] = "", other[8192] = "";
    if (gate_asks_path((enum op_class)op)) paths_of(h, path, other, sizeof path);
    struct decision d = gate_decide((enum op_class)op, path, *other ? other : NULL, after, bytes_of(h));
    if (d.what == FAIL) *error = d.error;
    if (d.what != HOLD) return false;
    struct pending *p = calloc(1, sizeof *p);
    size_t request = after ? sizeof *h : h->len;
    *p = (struct pending){.finished = after, .error = *error, .request_len = request, .answer_len = after ? len : 0,
        .request = copy_of(h, request), .answer = after ? copy_of(answer_buf, len) : NULL};
    gate_hold(&p->held, (enum op_class)op, d);
    return true;
}

static void go_on(const struct fuse_in_header *h) {   // past the gate in front of it
    size_t len;
    int error = operate(h, &len);
    if (waits(h, true, &error, len)) return;
    send_answer(h->unique, error, answer_buf, len);
}

static void request(struct fuse_in_header *h) {
    const void *in = h + 1;
    if (h->opcode == FUSE_FORGET) return forget(h->nodeid, ((const struct fuse_forget_in *)in)->nlookup);
    if (h->opcode == FUSE_BATCH_FORGET) {
        const struct fuse_batch_forget_in *b = in;
        const struct fuse_forget_one *one = (const void *)(b + 1);
        for (uint32_t i = 0; i < b->count; i++) forget(one[i].nodeid, one[i].nlookup);
        return;
    }
    int error = 0;
    if (waits(h, false, &error, 0)) return;
    if (error) send_answer(h->unique, error, NULL, 0);
    else go_on(h);
}

static void finish_due(void) {
    for (struct pending *p; (p = (struct pending *)gate_take_due());) {
        struct fuse_in_header *h = (void *)p->request;
        if (p->held.error) send_answer(h->unique, p->held.error, NULL, 0);
        else if (p->finished) send_answer(h->unique, p->error, p->answer, p->answer_len);
        else go_on(h);
        free(p->request), free(p->answer), free(p);
    }
}

// ---- control and life ------------------------------------------------------------------------------------------------

static void control(char *line) {
    char *word[12];
    int words = split_words(line, word, 12);
    FILE *out = stdout;
    if (words && !strcmp(word[0], "resume")) short_bytes = 0;
    if (!words) refuse(out, "empty command", "");
    else if (gate_command(word, words, out)) {}
    else if (!strcmp(word[0], "status")) put_status(out), fprintf(out, ",\"stopped\":%s,\"aborted\":%s}\n", stopped ? "true" : "false", dev < 0 ? "true" : "false");
    else if (!strcmp(word[0], "quit")) exit(0);
    else if (!strcmp(word[0], "short") && words == 2) short_bytes = strtoul(word[1], NULL, 10) / 4096 * 4096, fputs("{\"ok\":true}\n", out);
    else if (!strcmp(word[0], "stop") || !strcmp(word[0], "cont")) stopped = word[0][0] == 's', fputs("{\"ok\":true}\n", out);
    else if (!strcmp(word[0], "release")) stopped = false, gate_open_forever(), fputs("{\"ok\":true}\n", out);
    else if (!strcmp(word[0], "abort")) {
        if (dev >= 0) close(dev);   // the last descriptor: the kernel fails everything that waits
        dev = -1;
        fputs("{\"ok\":true}\n", out);
    } else refuse(out, "want hang delay fail rate resume status stop cont abort short; got ", word[0]);
    fflush(out);
}

static char **mounts_on_it;
static const char *mount_point, *back_dir, *lab_dir;

static void take_away(const char *mounted) {   // an error only says that the keeper has done it already
    if (umount2(mounted, 0)) umount2(mounted, MNT_DETACH);
}
static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where) {
    (void)st, (void)type, (void)where;
    remove(path);
    return 0;
}
static void *leave(void *unused) {   // beside the serving thread: what lies on us needs our answers to be unmounted
    (void)unused;
    for (char **m = mounts_on_it; *m; m++) take_away(*m);
    take_away(mount_point);
    take_away(back_dir);
    nftw(lab_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    _exit(0);
}

static bool read_control(void) {   // false: the keeper is gone
    static char buf[1024];
    static size_t have;
    ssize_t n = read(0, buf + have, sizeof buf - 1 - have);
    if (n <= 0) return n < 0 && errno == EINTR;
    have += (size_t)n;
    buf[have] = 0;
    for (char *end; (end = strchr(buf, '\n'));) {
        *end = 0;
        control(buf);
        have -= (size_t)(end + 1 - buf);
        memmove(buf, end + 1, have + 1);
    }
    if (have == sizeof buf - 1) have = 0;
    return true;
}

int main(int argc, char **argv) {
    if (argc < 5) return fprintf(stderr, "usage: stallfs MNT BACK MAX_HANG_S LAB_DIR [MOUNTS_ON_IT ...]\n"), 2;
    mount_point = argv[1], back_dir = argv[2], lab_dir = argv[4];
    mounts_on_it = argv + 5;
    gate.max_hang_s = atof(argv[3]);
    struct rlimit files = {1 << 20, 1 << 20};
    if (setrlimit(RLIMIT_NOFILE, &files)) getrlimit(RLIMIT_NOFILE, &files), files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
    umask(0);
    signal(SIGPIPE, SIG_IGN);
    root.fd = open(argv[2], O_PATH | O_DIRECTORY | O_CLOEXEC);
    dev = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (root.fd < 0 || dev < 0) return fprintf(stderr, "stallfs: %s: %s\n", root.fd < 0 ? argv[2] : "/dev/fuse", strerror(errno)), 1;
    char options[128];
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", dev);
    if (mount("stallfs", mount_point, "fuse.stallfs", MS_NOSUID | MS_NODEV, options))
        return fprintf(stderr, "stallfs: mount %s: %s\n", mount_point, strerror(errno)), 1;
    puts("{\"ok\":true}");
    fflush(stdout);

    char *buf = malloc(REQUEST_MAX);
    bool leaving = false;
    for (;;) {
        struct pollfd p[2] = {{.fd = leaving ? -1 : 0, .events = POLLIN}, {.fd = stopped ? -1 : dev, .events = POLLIN}};
        poll(p, 2, gate_poll_ms());
        if (p[0].revents && !read_control()) {
            pthread_t t;
            gate_open_forever();
            stopped = false;
            leaving = true;
            if (pthread_create(&t, NULL, leave, NULL)) leave(NULL);
        }
        finish_due();
        for (int i = 0; i < 32 && p[1].revents && !stopped && dev >= 0; i++) {
            ssize_t n = read(dev, buf, REQUEST_MAX);
            if (n >= (ssize_t)sizeof(struct fuse_in_header)) request((void *)buf);
            else if (n < 0 && errno == ENODEV) close(dev), dev = -1;   // unmounted, or aborted by somebody else
            else if (n < 0 && errno != EINTR && errno != ENOENT) break;
        }
    }
}
