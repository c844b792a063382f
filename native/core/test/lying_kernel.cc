// lying_kernel.cc — what it does to each call.
#include "lying_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "../lane_context.h"
#include "../mount.h"
#include "../operation.h"
#include "../paths.h"

extern "C" long __real_syscall(long number, ...);
// What stands for the kernel where a part of it is missing: test/arm64/emulator.cc.
extern "C" long kvlane_emulated_syscall(long number, ...) __attribute__((weak));

namespace kvlane::test {
namespace {

std::atomic<LyingKernel*> in_between{nullptr};

// Whose calls this thread makes just now, and how many it has made.
struct Now {
    const Operation* operation = nullptr;
    uint64_t id = 0;
    Mood mood = Mood::honest;
    unsigned nth = 0;
};
thread_local Now now;

uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

uint64_t hash_of(const char* text) {
    uint64_t h = 14695981039346656037U;
    for (; *text != 0; text++) h = (h ^ static_cast<unsigned char>(*text)) * 1099511628211U;
    return h;
}

long real(long number, const long* a) {
    if (kvlane_emulated_syscall != nullptr) return kvlane_emulated_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

class WatchedWork final : public BlockWork {
  public:
    WatchedWork(std::shared_ptr<Operation> operation, Mood mood) : operation_(operation), work_(make_block_work(operation)), mood_(mood) {}
    std::optional<Transfer> start(LaneContext& lane) override {
        enter();
        auto next = work_->start(lane);
        nth_ = now.nth;
        return next;
    }
    std::optional<Transfer> resume(LaneContext& lane, int64_t done) override {
        enter();
        auto next = work_->resume(lane, done);
        nth_ = now.nth;
        return next;
    }

  private:
    void enter() { now = {operation_.get(), operation_->id, mood_, nth_ + 100}; }
    const std::shared_ptr<Operation> operation_;
    const std::unique_ptr<BlockWork> work_;
    const Mood mood_;
    unsigned nth_ = 0;
};

constexpr size_t parts_max = 3;

// The first `bytes` of a transfer.
int shortened(const iovec* parts, int count, size_t bytes, iovec* to) {
    int kept = 0;
    for (int i = 0; i < count && bytes > 0; i++) {
        to[kept] = parts[i];
        to[kept].iov_len = std::min(to[kept].iov_len, bytes);
        bytes -= to[kept++].iov_len;
    }
    return kept;
}
size_t length(const iovec* parts, int count) {
    size_t sum = 0;
    for (int i = 0; i < count; i++) sum += parts[i].iov_len;
    return sum;
}

// A bit here and there; of what the kernel has written.
void spoil(const iovec* parts, int count, uint64_t where) {
    const size_t all = length(parts, count);
    if (all == 0) return;
    size_t at = static_cast<size_t>(where % all);
    for (int i = 0; i < count; i++) {
        if (at < parts[i].iov_len) {
            static_cast<unsigned char*>(parts[i].iov_base)[at] ^= static_cast<unsigned char>(1U << (where >> 60 & 7));
            return;
        }
        at -= parts[i].iov_len;
    }
}

}  // namespace

// ---- who is who ----

Mood LyingKernel::mood_of(uint64_t operation) const {
    const uint64_t drawn = mix(seed_ ^ mix(operation)) % 100;
    return drawn < 35 ? Mood::honest : drawn < 55 ? Mood::mild : drawn < 80 ? Mood::failing : Mood::lying;
}
bool LyingKernel::fire(uint64_t operation, const char* what, unsigned one_of) const { return mix(seed_ ^ mix(operation) ^ hash_of(what)) % one_of == 0; }
bool LyingKernel::is_held(uint64_t operation) const { return fire(operation, "held", 8); }
bool LyingKernel::draw(const char* what, unsigned one_of) {
    const bool drawn = mix(seed_ ^ mix(now.id * 1'000'003 + now.nth) ^ hash_of(what)) % one_of == 0;
    if (drawn) faults_.fetch_add(1, std::memory_order_relaxed);
    return drawn;
}
std::unique_ptr<BlockWork> LyingKernel::watched(std::shared_ptr<Operation> operation) {
    const Mood mood = mood_of(operation->id);
    return std::make_unique<WatchedWork>(std::move(operation), mood);
}

void LyingKernel::start() { in_between.store(this, std::memory_order_release); }
void LyingKernel::stop() { in_between.store(nullptr, std::memory_order_release); }

// ---- the gate ----

void LyingKernel::wait_here() {
    std::unique_lock<Monitor> hold(gate_);
    const uint64_t before = opened_;
    held_.fetch_add(1, std::memory_order_relaxed);
    ++inside_;
    while (opened_ == before) gate_.wait();
    --inside_;
}
void LyingKernel::release() {
    std::lock_guard<Monitor> hold(gate_);
    ++opened_;
    gate_.wake_all();
}
unsigned LyingKernel::inside() const {
    std::lock_guard<Monitor> hold(gate_);
    return inside_;
}

// ---- what came to light ----

void LyingKernel::say(const std::string& what) {
    std::lock_guard<std::mutex> hold(mutex_);
    violations_.push_back(what);
}
// Writes of every other key never lie: of these blocks not one may be found damaged, however long the storm is.
bool LyingKernel::may_be_damaged() { return now.operation == nullptr || hash_of(now.operation->hex.c_str()) % 2 == 0; }
void LyingKernel::taint() {
    if (now.operation == nullptr) return;
    std::lock_guard<std::mutex> hold(mutex_);
    tainted_.insert(now.operation->hex);
}
void LyingKernel::excuse(const char* name) {
    std::lock_guard<std::mutex> hold(mutex_);
    excused_.insert(name);
}
void LyingKernel::given_back(const void* memory) {
    std::lock_guard<std::mutex> hold(mutex_);
    given_back_.insert(memory);
}
void LyingKernel::look_at(const iovec* parts, int count) {
    std::lock_guard<std::mutex> hold(mutex_);
    for (int i = 0; i < count; i++) {
        if (given_back_.contains(parts[i].iov_base)) violations_.push_back("a call had memory that had been given back");
    }
}
std::vector<std::string> LyingKernel::violations() const {
    std::lock_guard<std::mutex> hold(mutex_);
    return violations_;
}
std::set<std::pair<pid_t, int>> LyingKernel::open_descriptors() const {
    std::lock_guard<std::mutex> hold(mutex_);
    return descriptors_;
}
std::set<std::string> LyingKernel::excused() const {
    std::lock_guard<std::mutex> hold(mutex_);
    return excused_;
}
bool LyingKernel::tainted(const std::string& hex) const {
    std::lock_guard<std::mutex> hold(mutex_);
    return tainted_.contains(hex);
}

// ---- the calls ----

long LyingKernel::refuse(int error) {
    errno = error;
    return -1;
}

long LyingKernel::call(long number, const long* a) {
    calls_.fetch_add(1, std::memory_order_relaxed);
    now.nth++;
    if (is_held(now.id) && now.nth % 100 == 1 + mix(seed_ ^ now.id) % 9) wait_here();
    if (number == SYS_io_pgetevents || number == SYS_io_getevents) return collect(number, a);
    if (number == SYS_close) return close(a);
    const bool bad = now.mood == Mood::failing || now.mood == Mood::lying;
    if (now.mood != Mood::honest && number != SYS_io_submit && draw("EINTR", 9)) return refuse(EINTR);
    if (now.mood == Mood::failing && draw("fails", 9)) {
        static constexpr int errors[] = {EIO, ENOSPC, EIO, EAGAIN, ENOMEM, ESTALE, EDQUOT};
        const int error = errors[mix(now.id + now.nth) % std::size(errors)];
        if (number == SYS_unlinkat || number == SYS_renameat2) excuse(reinterpret_cast<const char*>(a[1]));
        if (number == SYS_renameat2) excuse(reinterpret_cast<const char*>(a[3]));
        return refuse(error);
    }
    switch (number) {
        case SYS_openat:
        case SYS_openat2: return open(number, a);
        case SYS_preadv:
        case SYS_pwritev: return transfer(number, a);
        case SYS_statx: return stat(a);
        case SYS_renameat2:
        case SYS_linkat:
        case SYS_unlinkat: return change_name(number, a);
        case SYS_io_submit: return submit(a);
        default: break;
    }
    const long result = real(number, a);
    if (bad && number == SYS_fsync && draw("lost", 5)) return refuse(EIO);
    return result;
}

long LyingKernel::open(long number, const long* a) {
    if (number == SYS_openat2 && now.mood == Mood::mild && draw("raced", 7)) return refuse(EAGAIN);
    const char* name = reinterpret_cast<const char*>(a[1]);
    std::string other;
    open_how how = {};
    long altered[6];
    memcpy(altered, a, sizeof altered);
    if (number == SYS_openat2) {
        memcpy(&how, reinterpret_cast<const void*>(a[2]), sizeof how);
        const bool creates = (how.flags & O_CREAT) != 0;
        const std::string_view seen = name;
        // Another key's file: its bytes are whole, and not what was asked for.
        if (now.mood == Mood::lying && !creates && (how.flags & O_PATH) == 0 && seen.starts_with("blocks/") && seen.ends_with(".kvb") && draw("other", 4)) {
            other = seen;
            other[other.size() - 5] = other[other.size() - 5] == '1' ? '2' : '1';
            altered[1] = reinterpret_cast<long>(other.c_str());
        }
        if (planted_ == Planted::shared_temporary && creates) {
            how.flags &= ~static_cast<uint64_t>(O_EXCL);
            other = std::string(seen.substr(0, seen.find('.'))) + ".tmp";
            altered[1] = reinterpret_cast<long>(other.c_str());
            altered[2] = reinterpret_cast<long>(&how);
        }
    }
    const long fd = real(number, altered);
    if (fd < 0) return fd;
    if (now.mood == Mood::failing && draw("lost", 12)) {  // it was done, and the answer is an error
        __real_syscall(SYS_close, fd);
        return refuse(EIO);
    }
    std::lock_guard<std::mutex> hold(mutex_);
    descriptors_.insert({gettid(), static_cast<int>(fd)});
    return fd;
}

long LyingKernel::close(const long* a) {
    {
        std::lock_guard<std::mutex> hold(mutex_);
        if (planted_ == Planted::descriptor_kept && mix(now.id + now.nth) % 50 == 0) return 0;
        if (descriptors_.erase({gettid(), static_cast<int>(a[0])}) == 0) violations_.push_back("a lane closed a descriptor that it did not have");
    }
    const long result = real(SYS_close, a);
    if (now.mood == Mood::failing && draw("close", 9)) return refuse(EIO);
    if (now.mood == Mood::failing && draw("close", 9)) return refuse(EINTR);
    return result;
}

// Of a block's bytes a read may tell fewer than a page at any time, and not only at the end of the file. (Records and single pages come whole.)
bool LyingKernel::crumbs(bool reads, size_t asked, long moved) { return reads && asked > 4096 && moved > 0 && now.mood != Mood::honest && draw("crumb", 6); }
long LyingKernel::crumb(long moved) { return 1 + static_cast<long>(mix(now.id * 13 + now.nth) % static_cast<uint64_t>(std::min(moved, 4095L))); }

long LyingKernel::transfer(long number, const long* a) {
    const bool reads = number == SYS_preadv;
    const auto* parts = reinterpret_cast<const iovec*>(a[1]);
    const int count = static_cast<int>(a[2]);
    const size_t asked = length(parts, count);
    iovec fewer[parts_max];
    long altered[6];
    memcpy(altered, a, sizeof altered);
    if (now.mood != Mood::honest && asked > 4096 && draw("short", 4)) {
        const size_t pages = asked / 4096;
        const size_t bytes = 4096 * (1 + mix(now.id ^ now.nth) % pages);
        altered[1] = reinterpret_cast<long>(fewer);
        altered[2] = shortened(parts, count, bytes, fewer);
    }
    if (planted_ == Planted::late_write && !reads && asked > 8192) {
        // All but the first page comes later than the answer; here: never.
        altered[1] = reinterpret_cast<long>(fewer);
        altered[2] = shortened(parts, count, 4096, fewer);
        return real(number, altered) < 0 ? -1 : static_cast<long>(asked);
    }
    look_at(parts, count);
    const long moved = real(number, altered);
    const int error = errno;
    if (moved < 0 && error == EFAULT) say("the kernel was given memory that had been given back");
    look_at(parts, count);
    errno = error;
    if (crumbs(reads, asked, moved)) return crumb(moved);
    if (moved < 0 || now.mood != Mood::lying) {
        if (moved >= 0 && now.mood == Mood::failing && draw("lost", 12)) return refuse(EIO);
        return moved;
    }
    if (reads) {
        if (draw("other bytes", 3)) spoil(parts, count, mix(now.id * 31 + now.nth));
        if (draw("fewer", 6)) return static_cast<long>(mix(now.id + 7) % (asked + 1));
        if (draw("more", 6)) return static_cast<long>(asked + mix(now.id) % 10'000);
        return moved;
    }
    if (!may_be_damaged()) return moved;
    if (draw("took all", 3)) {
        taint();
        return static_cast<long>(asked);
    }
    if (draw("took more", 6)) {
        taint();
        return static_cast<long>(asked + mix(now.id) % 10'000);
    }
    if (draw("took less", 6)) {
        taint();
        return static_cast<long>(mix(now.id + 7) % (asked + 1));
    }
    return moved;
}

long LyingKernel::stat(const long* a) {
    const long result = real(SYS_statx, a);
    if (result != 0 || now.mood != Mood::lying) return result;
    auto* found = reinterpret_cast<struct statx*>(a[4]);
    if (draw("size", 6)) found->stx_size = mix(now.id + now.nth) % 100'000;
    if (draw("inode", 6)) found->stx_ino ^= 1 + mix(now.id) % 1000;
    if (draw("links", 9)) found->stx_nlink += 1;
    if (draw("type", 12)) found->stx_mode = static_cast<uint16_t>((found->stx_mode & 07777) | (mix(now.id) % 2 == 0 ? S_IFIFO : S_IFDIR));
    return 0;
}

long LyingKernel::change_name(long number, const long* a) {
    const char* first = reinterpret_cast<const char*>(a[1]);
    const char* second = number == SYS_unlinkat ? nullptr : reinterpret_cast<const char*>(a[3]);
    if (planted_ == Planted::temporary_kept && number == SYS_unlinkat && strstr(first, ".tmp") != nullptr) return 0;
    if (planted_ == Planted::late_name && number == SYS_unlinkat && now.operation != nullptr && now.operation->kind == Kind::store &&
        now.operation->result.status == Status::expired) {
        const std::string block = now.operation->mount->root + "/" + block_path(now.operation->name_space, now.operation->hex);
        const long publish[6] = {a[0], a[1], AT_FDCWD, reinterpret_cast<long>(block.c_str()), 0, 0};
        return real(SYS_renameat2, publish);
    }
    std::string shared[2];
    long altered[6];
    memcpy(altered, a, sizeof altered);
    if (planted_ == Planted::shared_temporary) {
        for (const int at : {1, 3}) {
            const std::string_view seen = at == 1 ? first : second == nullptr ? "" : second;
            if (!seen.ends_with(".tmp")) continue;
            shared[at / 2] = std::string(seen.substr(0, seen.find('.'))) + ".tmp";
            altered[at] = reinterpret_cast<long>(shared[at / 2].c_str());
        }
    }
    if (now.mood == Mood::lying && draw("not done", 5)) {
        excuse(first);
        if (second != nullptr) excuse(second);
        return 0;
    }
    const long result = real(number, altered);
    if (result == 0 && now.mood == Mood::failing && draw("lost", 6)) {
        excuse(first);
        if (second != nullptr) excuse(second);
        return refuse(EIO);
    }
    return result;
}

// ---- aio ----

// A lane's own, and so a thread's.
struct Pending {
    Now whose;
    iovec parts[parts_max];
    int count = 0;
    bool reads = false;
    size_t asked = 0;
};
thread_local std::map<uint64_t, Pending> in_flight;  // by seat
struct Kept {
    io_event event;
    uint64_t until;
};
thread_local std::vector<Kept> kept_back;

long LyingKernel::submit(const long* a) {
    iocb request = **reinterpret_cast<iocb**>(a[2]);
    if (now.mood != Mood::honest && draw("no room", 12)) return refuse(EAGAIN);
    Pending pending;
    pending.whose = now;
    const bool transfers = request.aio_lio_opcode != IOCB_CMD_FSYNC;
    if (transfers) {
        const auto* parts = reinterpret_cast<const iovec*>(request.aio_buf);
        pending.count = static_cast<int>(request.aio_nbytes);
        pending.reads = request.aio_lio_opcode == IOCB_CMD_PREADV;
        pending.asked = length(parts, pending.count);
        memcpy(pending.parts, parts, static_cast<size_t>(pending.count) * sizeof(iovec));
    }
    iovec fewer[parts_max];
    if (transfers && now.mood != Mood::honest && pending.asked > 4096 && draw("short", 4)) {
        request.aio_nbytes = static_cast<uint64_t>(shortened(pending.parts, pending.count, 4096 * (1 + mix(now.id ^ now.nth) % (pending.asked / 4096)), fewer));
        request.aio_buf = reinterpret_cast<uintptr_t>(fewer);
    }
    if (planted_ == Planted::late_write && transfers && !pending.reads && pending.asked > 8192) {
        request.aio_nbytes = static_cast<uint64_t>(shortened(pending.parts, pending.count, 4096, fewer));
        request.aio_buf = reinterpret_cast<uintptr_t>(fewer);
    }
    iocb* one = &request;
    look_at(pending.parts, pending.count);
    const long submitted = __real_syscall(SYS_io_submit, a[0], 1L, &one);
    if (submitted == 1) in_flight[request.aio_data] = pending;
    if (submitted < 0 && errno == EFAULT) say("the kernel was given memory that had been given back");
    return submitted;
}

long LyingKernel::collect(long number, const long* a) {
    auto* events = reinterpret_cast<io_event*>(a[3]);
    const long count_max = a[2];
    uint64_t opened;
    {
        std::lock_guard<Monitor> hold(gate_);
        opened = opened_;
    }
    long count = 0;
    for (size_t i = 0; i < kept_back.size() && count < count_max;) {
        if (kept_back[i].until > opened) {
            i++;
            continue;
        }
        events[count++] = kept_back[i].event;
        kept_back.erase(kept_back.begin() + static_cast<ptrdiff_t>(i));
    }
    if (count > 0) return count;
    timespec soon{0, 2'000'000};
    long altered[6];
    memcpy(altered, a, sizeof altered);
    const auto* limit = reinterpret_cast<const timespec*>(a[4]);
    if (!kept_back.empty() && (limit->tv_sec != 0 || limit->tv_nsec > soon.tv_nsec)) altered[4] = reinterpret_cast<long>(&soon);
    const long got = real(number, altered);
    if (got <= 0) return got;
    for (long i = 0; i < got; i++) {
        io_event event = events[i];
        const Pending pending = in_flight[event.data];
        const Now before = now;
        now = pending.whose;
        now.nth += 50;
        look_at(pending.parts, pending.count);
        if (event.res == -EFAULT) say("the kernel was given memory that had been given back");
        if (planted_ == Planted::late_write && event.res > 0 && !pending.reads && pending.asked > 8192) event.res = static_cast<int64_t>(pending.asked);
        if (now.mood == Mood::failing && draw("lost", 8)) event.res = mix(now.id) % 2 == 0 ? -EIO : -ENOSPC;
        if (crumbs(pending.reads, pending.asked, event.res)) {
            event.res = crumb(event.res);
        } else if (now.mood == Mood::lying && event.res > 0 && pending.count > 0) {
            if (pending.reads) {
                if (draw("other bytes", 3)) spoil(pending.parts, pending.count, mix(now.id * 31 + now.nth));
                if (draw("fewer", 6)) event.res = static_cast<int64_t>(mix(now.id + 7) % (pending.asked + 1));
            } else if (!may_be_damaged()) {
                // nothing
            } else if (draw("took all", 3)) {
                taint();
                event.res = static_cast<int64_t>(pending.asked);
            } else if (draw("took less", 6)) {
                taint();
                event.res = static_cast<int64_t>(mix(now.id + 7) % (pending.asked + 1));
            }
        }
        const bool stays = is_held(now.id) && draw("kept back", 2);
        now = before;
        if (stays) kept_back.push_back({event, opened + 1});
        else events[count++] = event;
    }
    return count;
}

}  // namespace kvlane::test

// As in the C library: what was not passed is read and not looked at, which the sanitizer would not have.
extern "C" [[gnu::no_sanitize_address]] long __wrap_syscall(long number, ...) {
    using namespace kvlane::test;
    long a[6];
    va_list list;
    va_start(list, number);
    for (long& one : a) one = va_arg(list, long);
    va_end(list);
    LyingKernel* const kernel = in_between.load(std::memory_order_acquire);
    switch (number) {
        case SYS_openat: case SYS_openat2: case SYS_preadv: case SYS_pwritev: case SYS_statx: case SYS_renameat2: case SYS_linkat:
        case SYS_unlinkat: case SYS_mkdirat: case SYS_fsync: case SYS_close: case SYS_io_submit: case SYS_io_getevents: case SYS_io_pgetevents:
        case SYS_getdents64: case SYS_fcntl: case SYS_lseek: case SYS_utimensat:
            if (kernel != nullptr) return kernel->call(number, a);
            break;
        default: break;
    }
    return real(number, a);
}
