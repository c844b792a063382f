// huge_arena_test.cc — which pages an arena gets, what is said of them, and what happens when there are too few.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "arena.h"
#include "huge_pool.h"
#include "test.h"

using namespace kvlane;
using namespace kvlane::test;

namespace {

constexpr uint64_t mib = 1 << 20;
constexpr int seals = F_SEAL_SHRINK | F_SEAL_GROW;
constexpr unsigned huge_2mib = MFD_HUGETLB | 21U << 26;  // MFD_HUGE_2MB, which older headers lack

struct Made {
    std::variant<Arena, ArenaError> made;
    Made(uint64_t bytes, HugePages wanted) : made(create_arena(bytes, wanted)) {}
    ~Made() {
        if (Arena* arena = std::get_if<Arena>(&made)) {
            munmap(arena->region.memory, arena->region.bytes);
            close(arena->fd);
        }
    }
    bool works() const { return std::holds_alternative<Arena>(made); }
    const Arena& arena() const { return std::get<Arena>(made); }
    const ArenaError& error() const { return std::get<ArenaError>(made); }
};

struct Memfd {
    int fd;
    Memfd(uint64_t bytes, unsigned flags, int with_seals = seals) : fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags)) {
        if (bytes > 0 && ftruncate(fd, static_cast<off_t>(bytes)) != 0) CHECK(false);
        if (fcntl(fd, F_ADD_SEALS, with_seals) != 0) CHECK(false);
    }
    ~Memfd() { close(fd); }
};

bool says(const std::string& text, const char* what) { return text.find(what) != std::string::npos; }

}  // namespace

TEST("off is small pages, and nothing is advised") {
    Made it(4 * mib, HugePages::off);
    CHECK(it.works());
    CHECK(it.arena().backing == Arena::Backing::shmem && it.arena().huge_bytes == 0 && it.arena().advice.empty());
    CHECK_EQUAL(it.arena().page_bytes, static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
}

TEST("madvise that has no effect is reported as small pages, with the command that would help") {
    HostPages host("pool=0 shmem=never");
    if (host.refused()) return;
    Memfd memfd(4 * mib, 0);
    void* const theirs = mmap(nullptr, 4 * mib, PROT_READ | PROT_WRITE, MAP_SHARED, memfd.fd, 0);
    CHECK_EQUAL(madvise(theirs, 4 * mib, MADV_HUGEPAGE), 0);  // the trap: it succeeds
    memset(theirs, 1, 4 * mib);
    auto made = adopt_arena(memfd.fd);
    const Arena& arena = std::get<Arena>(made);
    CHECK(arena.backing == Arena::Backing::shmem && arena.huge_bytes == 0);
    CHECK_EQUAL(arena.page_bytes, static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
    CHECK(says(arena.advice, "echo advise | sudo tee /sys/kernel/mm/transparent_hugepage/shmem_enabled"));
    munmap(theirs, 4 * mib);
    munmap(arena.region.memory, arena.region.bytes);
}

TEST("an arena too small for a huge page is not talked about") {
    Made it(64 << 10, HugePages::automatic);
    CHECK(it.works() && it.arena().advice.empty() && it.arena().region.bytes == 64 << 10);
}

TEST("shared memory gets transparent huge pages where the host allows it, and says so by the page tables") {
    HostPages host("pool=0 shmem=advise");
    if (host.refused()) return;
    Made it(7 * mib, HugePages::thp);
    if (!it.works()) {
        skipped("this machine's memory is too fragmented for transparent huge pages: " + it.error().message);
        return;
    }
    CHECK(it.arena().backing == Arena::Backing::thp && it.arena().advice.empty());
    CHECK_EQUAL(it.arena().region.bytes, 8 * mib);  // whole pages
    CHECK_EQUAL(it.arena().huge_bytes, 8 * mib);
    CHECK_EQUAL(it.arena().page_bytes, 2 * mib);
    CHECK_EQUAL(thp_seen(it.arena().region.memory, 8 * mib).shared, 8 * mib);
    // Somebody else's view of the same memory, and what the same question says after half of it went away.
    auto again = adopt_arena(it.arena().fd);
    Arena& other = std::get<Arena>(again);
    CHECK(other.backing == Arena::Backing::thp);
    CHECK(madvise(other.region.memory, 4 * mib, MADV_DONTNEED) == 0);
    other.observe();
    CHECK(other.backing == Arena::Backing::shmem && other.huge_bytes == 4 * mib);
    munmap(other.region.memory, other.region.bytes);
}

TEST("who asks again what a large arena lies on is not kept waiting while all its small pages are gone through") {
    void* const room = mmap(nullptr, 300 * mib, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    Arena arena;
    arena.region = Region{static_cast<std::byte*>(room), 300 * mib};
    arena.huge_bytes = 8 * mib;
    arena.observe();
    CHECK_EQUAL(arena.huge_bytes, 8 * mib);  // as before: nobody looked
    arena.huge_bytes = 44 * mib;
    arena.observe();
    CHECK_EQUAL(arena.huge_bytes, 0U);  // it never had one
    munmap(room, 300 * mib);
}

TEST("the hugetlb pool is taken whole and counted, and given back with the arena") {
    HostPages host("pool=4");
    if (host.refused()) return;
    const uint64_t before = HostPages::available();
    {
        Made it(5 * mib, HugePages::automatic);
        CHECK(it.works());
        CHECK(it.arena().backing == Arena::Backing::hugetlb && it.arena().page_bytes == 2 * mib && it.arena().advice.empty());
        CHECK_EQUAL(it.arena().region.bytes, 6 * mib);
        CHECK_EQUAL(it.arena().huge_bytes, 6 * mib);
        CHECK_EQUAL(HostPages::available(), before - 3);
        memset(it.arena().region.memory, 7, it.arena().region.bytes);
        // The other process's mapping of it takes no more.
        auto again = adopt_arena(it.arena().fd);
        CHECK(std::holds_alternative<Arena>(again) && std::get<Arena>(again).backing == Arena::Backing::hugetlb);
        CHECK(std::get<Arena>(again).region.memory[5 * mib] == std::byte{7});
        CHECK_EQUAL(HostPages::available(), before - 3);
        munmap(std::get<Arena>(again).region.memory, 6 * mib);
    }
    CHECK_EQUAL(HostPages::available(), before);
}

TEST("with the pool used up auto goes on with what there is, and who insists is told the numbers and the command") {
    HostPages host("pool=2 shmem=never");
    if (host.refused()) return;
    Made first(4 * mib, HugePages::hugetlb);
    CHECK(first.works());
    Made second(4 * mib, HugePages::automatic);
    CHECK(second.works() && second.arena().backing == Arena::Backing::shmem && second.arena().region.bytes == 4 * mib);
    CHECK(says(second.arena().advice, "nr_hugepages"));
    for (const HugePages insisting : {HugePages::hugetlb, HugePages::require, HugePages::thp}) {
        Made third(4 * mib, insisting);
        CHECK(!third.works());
        if (third.works()) continue;
        CHECK_EQUAL(std::string(third.error().code), std::string("ARENA_HUGE_PAGES"));
        CHECK(says(third.error().message, insisting == HugePages::thp ? "not allowed for shared memory" : "takes 2 huge pages of 2097152 bytes, and 0 are available"));
    }
}

TEST("free huge pages that an arena was made without are told of, not more of them asked for; and so is a size that ends in half a page") {
    HostPages host("pool=4 shmem=advise");
    if (host.refused()) return;
    Memfd small(4 * mib, 0);
    auto made = adopt_arena(small.fd, HugePages::off);
    CHECK(std::get<Arena>(made).advice.empty());
    munmap(std::get<Arena>(made).region.memory, 4 * mib);
    const std::string advice = huge_pages_advice(4 * mib, 0);
    CHECK(says(advice, "yet 4 huge pages of 2048 KiB are free on the host") && says(advice, "hugetlb.*.max") && !says(advice, "nr_hugepages"));
    CHECK(says(huge_pages_advice(10 * mib, 0), "echo 5 | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"));
    Memfd uneven(5 * mib, 0);
    made = adopt_arena(uneven.fd);
    const Arena& arena = std::get<Arena>(made);
    CHECK(arena.backing == Arena::Backing::shmem && arena.huge_bytes == 4 * mib);
    CHECK(says(arena.advice, "its size should be a multiple of 2097152 bytes"));
    munmap(arena.region.memory, arena.region.bytes);
}

TEST("signals that come while the pool's pages are taken cost none of them") {
    HostPages host("pool=8");
    if (host.refused()) return;
    struct sigaction before {};
    struct sigaction nothing {};
    nothing.sa_handler = [](int) {};
    sigaction(SIGUSR1, &nothing, &before);
    const pthread_t self = pthread_self();
    std::atomic<bool> over = false;
    std::thread bothers([&] {
        while (!over) pthread_kill(self, SIGUSR1);
    });
    for (int i = 0; i < 20; i++) {
        Made it(16 * mib, HugePages::hugetlb);
        CHECK(it.works());
    }
    over = true;
    bothers.join();
    sigaction(SIGUSR1, &before, nullptr);
}

TEST("a client's hugetlb memfd that cannot be used is refused in clear words") {
    HostPages host("pool=2");
    if (host.refused()) return;
    Memfd empty(0, huge_2mib);
    auto made = adopt_arena(empty.fd);
    CHECK(std::holds_alternative<ArenaError>(made) && std::string(std::get<ArenaError>(made).code) == "ARENA_SIZE");
    CHECK(says(std::get<ArenaError>(made).message, "multiple of its page size, 2097152 bytes"));
    Memfd large(8 * mib, huge_2mib);  // made, and never mapped by its owner
    made = adopt_arena(large.fd);
    CHECK(std::holds_alternative<ArenaError>(made) && std::string(std::get<ArenaError>(made).code) == "ARENA_HUGE_PAGES");
    CHECK(says(std::get<ArenaError>(made).message, "takes 4 huge pages of 2097152 bytes, and 2 are available"));
    Memfd open_ended(2 * mib, huge_2mib, F_SEAL_GROW);
    made = adopt_arena(open_ended.fd);
    CHECK(std::holds_alternative<ArenaError>(made) && std::string(std::get<ArenaError>(made).code) == "ARENA_NOT_SEALED");
}

TEST("the seal against writing tells of huge pages, too, whether somebody has them mapped") {
    HostPages host("pool=2");
    if (host.refused()) return;
    Memfd memfd(4 * mib, huge_2mib);
    auto made = adopt_arena(memfd.fd);
    memset(std::get<Arena>(made).region.memory, 1, 4 * mib);
    CHECK(fcntl(memfd.fd, F_ADD_SEALS, F_SEAL_WRITE) != 0 && errno == EBUSY);
    munmap(std::get<Arena>(made).region.memory, 4 * mib);
    CHECK_EQUAL(fcntl(memfd.fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
}

TEST("words for huge pages are those of the command line") {
    HugePages word = HugePages::off;
    CHECK(huge_pages_named("auto", word) && word == HugePages::automatic);
    CHECK(huge_pages_named("thp", word) && word == HugePages::thp);
    CHECK(!huge_pages_named("on", word) && word == HugePages::thp);
}

TEST("a page that would waste more than an eighth of the arena is too large for it") {
    CHECK(huge_page_fits(2 * mib, 2 * mib) && huge_page_fits(3 * mib, 2 * mib) && huge_page_fits(1025 * mib, 2 * mib));
    CHECK(!huge_page_fits(1 * mib, 2 * mib) && !huge_page_fits(1025 * mib, 1024 * mib) && !huge_page_fits(4096, 0));
    CHECK(huge_page_fits(1000 * 1024 * mib + 1, 1024 * mib));
}
