// gate.h: rules that hold, delay, slow down or fail operations. stallfs.c and sysgate.c both decide by them.
//
// Surprising: nothing here waits and nothing here locks. Both programs are one thread around poll(2). A held operation is
// an entry in a list, not a waiting thread, so that ten thousand of them cost a few hundred bytes each.
//
//   hang CLASSES [match=GLOB] [count=N] [when=before|after]
//   delay CLASSES MS …          fail CLASSES ERRNO …          rate CLASSES BYTES_PER_S …
//   resume [CLASSES] [ERRNO] [count=N]     no count: the rules of these classes end and all they hold goes on (or fails);
//                                          count=N: the N held longest go on, the rules stay
//   status
//
// CLASSES: names joined by commas, or "all". GLOB is held against the path below the mount, which begins with a slash;
// "*" also matches slashes. A rename matches by its old or its new name. The first rule that fits decides.
#pragma once
#include <errno.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum op_class { OP_OPEN, OP_LOOKUP, OP_GETATTR, OP_READ, OP_WRITE, OP_FSYNC, OP_RENAME, OP_MKDIR, OP_UNLINK, OP_CLOSE, OP_CLASSES };
static const char *const op_names[OP_CLASSES] = {"open",  "lookup", "getattr", "read",   "write",
                                                 "fsync", "rename", "mkdir",   "unlink", "close"};
#define ALL_CLASSES ((1u << OP_CLASSES) - 1)

enum action { DO_HANG, DO_DELAY, DO_FAIL, DO_RATE };
static const char *const action_names[] = {"hang", "delay", "fail", "rate"};

struct rule {
    enum action action;
    unsigned classes;
    bool after;          // hold the answer of a finished operation instead of the operation
    long count;          // how many more operations it takes; -1: no limit
    double value;        // DO_DELAY: seconds · DO_FAIL: errno · DO_RATE: bytes per second
    double free_at;      // DO_RATE: when everything let through so far has been "transferred"
    char glob[256];      // empty: every path
    struct rule *next;
};

// What a program keeps of an operation that it does not do yet. It embeds this as the first member of its own record.
struct held {
    enum op_class op;
    bool hung;           // by a hang rule: counted in "held", ended by resume; else a delay or a rate: ends by itself
    double due;          // CLOCK_MONOTONIC; when it goes on at the latest
    int error;           // 0, or the errno to fail with once due
    struct held *next;
};

static struct {
    struct rule *rules;
    struct held *first, **last;
    double next_due;                     // the earliest due time in the list
    double max_hang_s;                   // no operation is held longer, whatever happens to the people who asked for it
    bool open_forever;                   // set at the end: no rule applies any more
    long held[OP_CLASSES], delayed[OP_CLASSES], gated[OP_CLASSES], seen[OP_CLASSES];
} gate = {.last = &gate.first, .next_due = 1e18, .max_hang_s = 60};

struct decision { enum { GO, FAIL, HOLD } what; int error; bool hung; double due; };

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool fits(const struct rule *rule, const char *path, const char *other) {
    if (!rule->glob[0]) return true;
    return (path && !fnmatch(rule->glob, path, 0)) || (other && !fnmatch(rule->glob, other, 0));
}

// Whether a path is needed at all: finding it costs a system call or two.
static inline bool gate_asks_path(enum op_class op) {
    for (const struct rule *r = gate.rules; r; r = r->next)
        if (r->glob[0] && (r->classes >> op & 1)) return true;
    return false;
}

static struct decision gate_decide(enum op_class op, const char *path, const char *other, bool after, size_t bytes) {
    if (!after) gate.seen[op]++;
    if (gate.open_forever) return (struct decision){.what = GO};
    for (struct rule *r = gate.rules; r; r = r->next) {
        if (!r->count || r->after != after || !(r->classes >> op & 1) || !fits(r, path, other)) continue;
        if (r->count > 0) r->count--;
        gate.gated[op]++;
        if (r->action == DO_FAIL) return (struct decision){.what = FAIL, .error = (int)r->value};
        double now = now_s();
        if (r->action == DO_HANG) return (struct decision){.what = HOLD, .hung = true, .due = now + gate.max_hang_s};
        if (r->action == DO_DELAY) return (struct decision){.what = HOLD, .due = now + r->value};
        if (r->free_at < now) r->free_at = now;
        r->free_at += (double)bytes / r->value;
        return (struct decision){.what = HOLD, .due = r->free_at};
    }
    return (struct decision){.what = GO};
}

static void gate_hold(struct held *h, enum op_class op, struct decision d) {
    *h = (struct held){.op = op, .hung = d.hung, .due = d.due};
    *gate.last = h;
    gate.last = &h->next;
    (d.hung ? gate.held : gate.delayed)[op]++;
    if (d.due < gate.next_due) gate.next_due = d.due;
}

// The next operation whose time has come, taken out of the list; NULL: none. The caller finishes and frees it.
static struct held *gate_take_due(void) {
    double now = now_s();
    if (now < gate.next_due) return NULL;
    gate.next_due = 1e18;
    struct held *found = NULL;
    for (struct held **at = &gate.first; *at;) {
        struct held *h = *at;
        if (!found && h->due <= now) {
            found = h;
            *at = h->next;
            (h->hung ? gate.held : gate.delayed)[h->op]--;
            continue;
        }
        if (h->due < gate.next_due) gate.next_due = h->due;
        at = &h->next;
    }
    gate.last = &gate.first;
    while (*gate.last) gate.last = &(*gate.last)->next;
    return found;
}

static int gate_poll_ms(void) {
    double left = gate.next_due - now_s();
    return left <= 0 ? 0 : left > 1 ? 1000 : (int)(left * 1000) + 1;
}

static void end_rules(unsigned classes) {
    for (struct rule **at = &gate.rules; *at;) {
        struct rule *r = *at;
        r->classes &= ~classes;
        if (r->classes) at = &r->next;
        else *at = r->next, free(r);
    }
}

static long let_go(unsigned classes, int error, long count) {
    long n = 0;
    for (struct held *h = gate.first; h && (count < 0 || n < count); h = h->next) {
        if (!(classes >> h->op & 1) || h->due == 0) continue;
        h->due = 0, h->error = error, n++;
    }
    if (n) gate.next_due = 0;
    return n;
}

static inline void gate_open_forever(void) {
    gate.open_forever = true;
    end_rules(ALL_CLASSES);
    let_go(ALL_CLASSES, 0, -1);
}

// ---- the text side -------------------------------------------------------------------------------------------------

static const struct { const char *name; int value; } error_names[] = {
    {"EIO", EIO},       {"ENOSPC", ENOSPC},       {"EDQUOT", EDQUOT}, {"EACCES", EACCES}, {"EPERM", EPERM}, {"ENOENT", ENOENT},
    {"ESTALE", ESTALE}, {"ETIMEDOUT", ETIMEDOUT}, {"EROFS", EROFS},   {"EMFILE", EMFILE}, {"EINTR", EINTR}, {"EAGAIN", EAGAIN}};

static int error_of(const char *name) {
    for (size_t i = 0; i < sizeof error_names / sizeof *error_names; i++)
        if (!strcmp(name, error_names[i].name)) return error_names[i].value;
    return 0;
}

static unsigned classes_of(const char *names) {
    unsigned found = 0;
    char copy[256];
    if (strlen(names) >= sizeof copy) return 0;
    strcpy(copy, names);
    for (char *save, *name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        unsigned one = strcmp(name, "all") ? 0 : ALL_CLASSES;
        for (int i = 0; i < OP_CLASSES; i++)
            if (!strcmp(name, op_names[i])) one = 1u << i;
        if (!one) return 0;
        found |= one;
    }
    return found;
}

static void refuse(FILE *out, const char *why, const char *what) {
    fprintf(out, "{\"ok\":false,\"error\":\"%s", why);
    for (; what && *what; what++) fputc(*what < ' ' || *what == '"' || *what == '\\' ? '?' : *what, out);
    fputs("\"}\n", out);
}

static void put_counts(FILE *out, const char *name, const long *counts) {
    long total = 0;
    fprintf(out, ",\"%s\":{", name);
    for (int i = 0; i < OP_CLASSES; i++) total += counts[i], fprintf(out, "\"%s\":%ld,", op_names[i], counts[i]);
    fprintf(out, "\"all\":%ld}", total);
}

static void put_status(FILE *out) {
    fputs("{\"ok\":true,\"rules\":[", out);
    for (const struct rule *r = gate.rules; r; r = r->next) {
        fprintf(out, "%s{\"do\":\"%s\",\"classes\":[", r == gate.rules ? "" : ",", action_names[r->action]);
        const char *sep = "";
        for (int i = 0; i < OP_CLASSES; i++)
            if (r->classes >> i & 1) fprintf(out, "%s\"%s\"", sep, op_names[i]), sep = ",";
        fprintf(out, "],\"value\":%g,\"match\":\"%s\",\"when\":\"%s\",\"count\":%ld}", r->value, r->glob,
                r->after ? "after" : "before", r->count);
    }
    fputs("]", out);
    put_counts(out, "held", gate.held);        // hung now
    put_counts(out, "delayed", gate.delayed);  // waiting for a delay or a rate now
    put_counts(out, "gated", gate.gated);      // ever taken by a rule
    put_counts(out, "seen", gate.seen);        // ever arrived
}

static void add_rule(FILE *out, enum action action, char **word, int words) {
    struct rule r = {.action = action, .count = -1, .classes = words > 1 ? classes_of(word[1]) : 0};
    if (!r.classes) return refuse(out, "want classes out of open,lookup,getattr,read,write,fsync,rename,mkdir,unlink,close,all; got ", word[1]);
    int at = 2;
    if (action != DO_HANG) {
        const char *v = words > 2 ? word[at++] : "";
        r.value = action == DO_FAIL ? error_of(v) : action == DO_DELAY ? atof(v) / 1000 : atof(v);
        if (!(r.value > 0)) return refuse(out, "want delay MS, rate BYTES_PER_S or fail EIO|ENOSPC|…; got ", v);
    }
    for (; at < words; at++) {
        char *w = word[at];
        if (!strncmp(w, "match=", 6) && strlen(w) < sizeof r.glob && !strpbrk(w, "\"\\")) strcpy(r.glob, w + 6);
        else if (!strncmp(w, "count=", 6) && atol(w + 6) > 0) r.count = atol(w + 6);
        else if (!strcmp(w, "when=after")) r.after = true;
        else if (strcmp(w, "when=before")) return refuse(out, "want match=GLOB, count=N, when=before or when=after; got ", w);
    }
    struct rule **end = &gate.rules, *made = malloc(sizeof r);
    while (*end) end = &(*end)->next;
    *made = r;
    *end = made;
    fputs("{\"ok\":true}\n", out);
}

static void resume(FILE *out, char **word, int words) {
    unsigned classes = ALL_CLASSES;
    int error = 0;
    long count = -1;
    for (int i = 1; i < words; i++) {
        if (classes_of(word[i])) classes = classes_of(word[i]);
        else if (error_of(word[i])) error = error_of(word[i]);
        else if (!strncmp(word[i], "count=", 6) && atol(word[i] + 6) > 0) count = atol(word[i] + 6);
        else return refuse(out, "want resume [CLASSES] [ERRNO] [count=N]; got ", word[i]);
    }
    if (count < 0) end_rules(classes);
    fprintf(out, "{\"ok\":true,\"resumed\":%ld}\n", let_go(classes, error, count));
}

// One line in; true: it was a rule command and its answer line is in `out`. status is left open for the caller to add to.
static bool gate_command(char **word, int words, FILE *out) {
    for (int i = 0; i < 4; i++)
        if (!strcmp(word[0], action_names[i])) return add_rule(out, (enum action)i, word, words), true;
    if (!strcmp(word[0], "resume")) return resume(out, word, words), true;
    return false;
}

static int split_words(char *line, char **word, int max) {
    int n = 0;
    for (char *save, *w = strtok_r(line, " \t\r\n", &save); w && n < max; w = strtok_r(NULL, " \t\r\n", &save)) word[n++] = w;
    return n;
}
