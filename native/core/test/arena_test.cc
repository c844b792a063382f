// arena_test.cc — which memory is taken, and which is refused in which words.
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"
#include "test.h"

using namespace kvlane;
using namespace kvlane::test;

namespace {

int memfd(off_t bytes, int seals) {
    const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (ftruncate(fd, bytes) != 0 || fcntl(fd, F_ADD_SEALS, seals) != 0) CHECK(false);
    return fd;
}

std::string refusal(std::variant<Arena, ArenaError> made) {
    const ArenaError* error = std::get_if<ArenaError>(&made);
    return error == nullptr ? "accepted" : error->code;
}

}  // namespace

TEST("an arena of our own is mapped, sealed and as large as asked") {
    auto made = create_arena(1 << 20);
    CHECK(std::holds_alternative<Arena>(made));
    const Arena& arena = std::get<Arena>(made);
    CHECK_EQUAL(arena.region.bytes, 1U << 20);
    memset(arena.region.memory, 7, arena.region.bytes);
    CHECK((fcntl(arena.fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW));
    CHECK(ftruncate(arena.fd, 4096) != 0);
    // Somebody else's view of the same memory:
    auto again = adopt_arena(arena.fd);
    CHECK(std::holds_alternative<Arena>(again));
    CHECK(std::get<Arena>(again).region.memory[4711] == std::byte{7});
}

TEST("an arena says what it is made of") {
    auto made = create_arena(1 << 20);
    const Arena& arena = std::get<Arena>(made);
    CHECK(arena.backing == Arena::Backing::shmem || arena.page_bytes >= (64U << 10));
    CHECK(arena.page_bytes >= 4096);
}

TEST("what cannot be an arena is refused with a code that says why") {
    CHECK_EQUAL(refusal(adopt_arena(9'999)), std::string("ARENA_NOT_OPEN"));
    const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CHECK_EQUAL(refusal(adopt_arena(file)), std::string("ARENA_NOT_MEMFD"));
    close(file);
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK_EQUAL(refusal(adopt_arena(ends[0])), std::string("ARENA_NOT_MEMFD"));
    CHECK_EQUAL(refusal(adopt_arena(memfd(1 << 20, F_SEAL_SHRINK))), std::string("ARENA_NOT_SEALED"));
    CHECK_EQUAL(refusal(adopt_arena(memfd(1 << 20, F_SEAL_GROW))), std::string("ARENA_NOT_SEALED"));
    CHECK_EQUAL(refusal(adopt_arena(memfd(0, F_SEAL_SHRINK | F_SEAL_GROW))), std::string("ARENA_SIZE"));
    CHECK_EQUAL(refusal(adopt_arena(memfd(5'000, F_SEAL_SHRINK | F_SEAL_GROW))), std::string("ARENA_SIZE"));
    CHECK_EQUAL(refusal(adopt_arena(memfd(1 << 20, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))), std::string("ARENA_MAP"));
    CHECK_EQUAL(refusal(create_arena(0)), std::string("ARENA_SIZE"));
    CHECK_EQUAL(refusal(create_arena(1)), std::string("ARENA_SIZE"));
    CHECK_EQUAL(refusal(create_arena(1ULL << 62)), std::string("ARENA_MAP"));
}

TEST("a region covers what is aligned and inside, to the last byte and no further") {
    const Region region{reinterpret_cast<std::byte*>(4096), 16'384};
    CHECK(region.covers(0, 16'384));
    CHECK(region.covers(12'288, 4'096));
    CHECK(region.covers(4'096, 1));
    CHECK(!region.covers(0, 16'385));
    CHECK(!region.covers(12'288, 4'097));
    CHECK(!region.covers(16'384, 1));
    CHECK(!region.covers(1, 4'096));
    CHECK(!region.covers(0, 0));
    CHECK(!region.covers(4'096, UINT64_MAX));
    CHECK(!region.covers(UINT64_MAX - 4'095, 8'192));
    CHECK(!Region{}.covers(0, 0));
}
