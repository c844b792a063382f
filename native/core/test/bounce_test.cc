// bounce_test.cc — the detour through private huge pages: the same bytes, and never one in a slot that is somebody else's.
#include <sys/mman.h>
#include <sys/prctl.h>

#include <cstring>
#include <memory>
#include <optional>

#include "block_fixture.h"
#include "bounce.h"
#include "huge_pool.h"
#include "test.h"

using namespace kvlane;
using namespace kvlane::test;

namespace {

constexpr uint64_t mib = 1 << 20;
constexpr uint8_t untouched_byte = 0xcc;

bool no_private_huge_pages() { return !private_thp_allowed() && skipped("this kernel gives no transparent huge pages to private memory"); }

// A store, and a slot in an "arena" that is nothing but this slot.
struct Detoured {
    TestStore store;
    Memory slot;
    std::shared_ptr<BounceBuffers> buffers;
    MakeWork make;
    explicit Detoured(uint64_t bytes, unsigned count = 1)
        : slot(bytes), buffers(std::make_shared<BounceBuffers>(count)),
          make(through_bounce(make_block_work, Region{slot.data(), (bytes + 4095) / 4096 * 4096}, buffers)) {}

    // As the `threads` engine does it.
    Result run(const std::shared_ptr<Operation>& operation) {
        operation->begin_running();
        auto work = make(operation);
        auto next = work->start(*store.lane);
        while (next) {
            moved_through = next->parts[1].iov_base;
            next = work->resume(*store.lane, store.lane->transfer(*operation, *next));
        }
        work.reset();
        store.lane->close_leftovers(*operation);
        return operation->result;
    }
    bool slot_is_untouched() const {
        for (uint64_t i = 0; i < slot.bytes(); i++) {
            if (slot.data()[i] != std::byte{untouched_byte}) return false;
        }
        return true;
    }
    bool went_round() const { return moved_through < static_cast<void*>(slot.data()) || moved_through >= static_cast<void*>(slot.data() + slot.bytes()); }
    void* moved_through = nullptr;
};

}  // namespace

TEST("a block comes back through a bounce buffer as it was stored through one, to the last byte and no further") {
    if (no_private_huge_pages()) return;
    for (const uint64_t bytes : {uint64_t{64} << 10, (uint64_t{64} << 10) + 1, mib, 3 * mib - 5}) {
        Detoured it(bytes);
        Memory wanted(bytes);
        wanted.fill_pattern(bytes);
        it.slot.fill_pattern(bytes);
        it.slot.mark_rest(0xdd);
        CHECK(it.run(it.store.store("aa00", it.slot)).status == Status::ok);
        CHECK(it.went_round());
        it.slot.fill(untouched_byte);
        const auto load = it.store.load("aa00", it.slot);
        CHECK(it.run(load).status == Status::ok);
        CHECK(it.went_round());
        CHECK(load->memory == it.slot.data());  // as it was asked
        CHECK(it.slot.equals(wanted) && it.slot.untouched(0xdd));
    }
}

TEST("while the kernel reads, the slot is as it was; an abandoned load leaves it so, and a damaged block does") {
    if (no_private_huge_pages()) return;
    Detoured it(mib);
    it.slot.fill_pattern(3);
    it.run(it.store.store("aa00", it.slot));
    it.slot.fill(untouched_byte);
    bool looked = false;
    const auto load = it.store.load("aa00", it.slot);
    it.store.files.after = [&](size_t, const std::string& name) -> std::optional<int64_t> {
        if (name == "preadv" && it.moved_through != nullptr) {  // not the store's identity
            looked = it.slot_is_untouched();
            load->abandon();
        }
        return std::nullopt;
    };
    CHECK(it.run(load).status == Status::ok);  // late
    CHECK(looked && it.slot_is_untouched());

    it.store.files.forget();
    std::string file = TestStore::contents(it.store.path("aa00"));
    file[5000] = static_cast<char>(file[5000] ^ 1);
    TestStore::write_file(it.store.path("aa00"), file);
    CHECK(it.run(it.store.load("aa00", it.slot)).status == Status::corrupt);
    CHECK(it.slot_is_untouched());
}

TEST("small blocks, memory that is no arena's, and work without memory go the direct way") {
    if (no_private_huge_pages()) return;
    Detoured small((64 << 10) - 1);
    small.slot.fill_pattern(1);
    CHECK(small.run(small.store.store("aa00", small.slot)).status == Status::ok && !small.went_round());
    Detoured other(mib);
    Memory staging(mib);
    staging.fill_pattern(2);
    CHECK(other.run(other.store.store("aa01", staging)).status == Status::ok);
    CHECK(other.moved_through == staging.data());
    CHECK(other.run(other.store.remove("aa01")).status == Status::ok);
}

TEST("when every buffer is with the kernel, a transfer goes the direct way, and the next one has it again") {
    if (no_private_huge_pages()) return;
    Detoured it(mib, 1);
    it.slot.fill_pattern(1);
    it.run(it.store.store("aa00", it.slot));
    const auto stuck = it.store.load("aa00", it.slot);
    stuck->begin_running();
    auto holder = it.make(stuck);
    CHECK(holder->start(*it.store.lane).has_value());  // a lane that does not come back
    CHECK(stuck->memory != it.slot.data());
    it.slot.fill(untouched_byte);
    Memory wanted(mib);
    wanted.fill_pattern(1);
    CHECK(it.run(it.store.load("aa00", it.slot)).status == Status::ok);
    CHECK(!it.went_round() && it.slot.equals(wanted));
    holder.reset();
    CHECK(stuck->memory == it.slot.data());
    it.store.lane->close_leftovers(*stuck);
    CHECK(it.run(it.store.load("aa00", it.slot)).status == Status::ok && it.went_round());
}

TEST("where the mount takes no O_DIRECT nothing goes round: the kernel copies already") {
    if (no_private_huge_pages()) return;
    Detoured it(mib);
    it.slot.fill_pattern(1);
    const auto store = it.store.store("aa00", it.slot);
    CHECK(it.run(store).status == Status::ok);
    it.store.lane->root_of(*store).direct_refused = true;  // as the first block on such a mount has it
    CHECK(it.run(it.store.store("aa01", it.slot)).status == Status::ok && !it.went_round());
    CHECK(it.run(it.store.load("aa00", it.slot)).status == Status::ok && !it.went_round());
}

TEST("buffers grow with the blocks, and all of a pool stay within its bound") {
    if (no_private_huge_pages()) return;
    BounceBuffers buffers(bounce_buffers_max);
    const Region small = buffers.take(64 << 10);
    CHECK_EQUAL(small.bytes, 2 * mib);
    buffers.give(small);
    const Region large = buffers.take(bounce_bytes_max);
    CHECK(large.bytes == bounce_bytes_max && reinterpret_cast<uintptr_t>(large.memory) % (2 * mib) == 0);
    const Region another = buffers.take(bounce_bytes_max);
    CHECK(another.memory != nullptr);
    CHECK(buffers.take(64 << 10).memory == nullptr);  // bounce_pool_bytes_max
    buffers.give(large);
    CHECK(buffers.take(64 << 10).memory == large.memory);
    BounceBuffers one(1);
    CHECK(one.take(1).memory != nullptr && one.take(1).memory == nullptr);
}

TEST("a bounce buffer is on huge pages by the page tables, and where the kernel has none for now there are those that exist") {
    if (no_private_huge_pages()) return;
    BounceBuffers buffers(4);
    const Region first = buffers.take(3 * mib);
    CHECK(first.bytes == 4 * mib && thp_seen(first.memory, first.bytes).anonymous == 4 * mib);
    buffers.give(first);
    CHECK_EQUAL(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
    CHECK(buffers.take(5 * mib).memory == nullptr);
    CHECK(buffers.take(3 * mib).memory == first.memory);
    CHECK(buffers.take(3 * mib).memory == nullptr);
    CHECK_EQUAL(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), 0);
    // It is not asked again for a while, and then it is.
    CHECK(buffers.take(3 * mib).memory == nullptr);
    Region later;
    for (unsigned i = 0; i < bounce_pause_takes && later.memory == nullptr; i++) later = buffers.take(3 * mib);
    CHECK(later.bytes == 4 * mib);
}

TEST("the buffers of a pool that was closed are the kernel's again, those that are out when they come back") {
    if (no_private_huge_pages()) return;
    BounceBuffers buffers(2);
    const Region idle = buffers.take(mib);
    const Region out = buffers.take(mib);
    buffers.give(idle);
    const auto mapped = [](const Region& region) {
        unsigned char seen = 0;
        return mincore(region.memory, 4096, &seen) == 0;
    };
    CHECK(mapped(idle) && mapped(out));
    buffers.close();
    CHECK(!mapped(idle) && mapped(out));
    CHECK(buffers.take(mib).memory == nullptr);
    buffers.give(out);
    CHECK(!mapped(out));
}
