#include "bounce.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <cstring>
#include <optional>
#include <utility>

#include "huge_pages.h"
#include "lane_context.h"

namespace kvlane {

namespace {

// Of this thread, until now. What a sanitizer does beside a write must not count.
long page_faults() {
    rusage used{};
    getrusage(RUSAGE_THREAD, &used);
    return used.ru_minflt + used.ru_majflt;
}
__attribute__((no_sanitize("thread", "address"))) void touch(std::byte* at) { *static_cast<volatile std::byte*>(at) = std::byte{0}; }

// On huge pages, or empty. It is known by the faults, one for each: smaps would tell, too, but goes through the page
// tables of everything on the way, 20 ms for each GiB of an arena on small pages, and holds up whoever maps memory.
Region make_buffer(uint64_t size, uint64_t huge) {
    void* const room = mmap(nullptr, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return {};
    auto* const begin = static_cast<std::byte*>(room);
    std::byte* const memory = begin + (huge - reinterpret_cast<uintptr_t>(room) % huge) % huge;
    if (memory > begin) munmap(begin, static_cast<size_t>(memory - begin));
    munmap(memory + size, static_cast<size_t>(begin + huge - memory));
    bool on_huge_pages = madvise(memory, size, MADV_HUGEPAGE) == 0;
    for (uint64_t at = 0; on_huge_pages && at < size; at += huge) {
        touch(memory + at);
        const long before = page_faults();
        touch(memory + at + huge - page_bytes);
        on_huge_pages = page_faults() == before;
    }
    if (on_huge_pages) return Region{memory, size};
    munmap(memory, size);
    return {};
}

// Inside, everything is as without: only `memory` of the operation is another while its work goes on.
class Detour final : public BlockWork {
  public:
    Detour(std::unique_ptr<BlockWork> inner, std::shared_ptr<Operation> operation, std::shared_ptr<BounceBuffers> buffers)
        : inner_(std::move(inner)), operation_(std::move(operation)), buffers_(std::move(buffers)), slot_(operation_->memory) {}

    ~Detour() override {
        if (buffer_.memory == nullptr) return;
        operation_->memory = slot_;
        buffers_->give(buffer_);
    }

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!lane.root_of(*operation_).direct_refused) buffer_ = buffers_->take(operation_->bytes);
        if (buffer_.memory == nullptr) return inner_->start(lane);
        operation_->memory = buffer_.memory;
        if (operation_->kind == Kind::store) std::memcpy(buffer_.memory, slot_, operation_->bytes);
        return after(inner_->start(lane));
    }

    std::optional<Transfer> resume(LaneContext& lane, int64_t done) override { return after(inner_->resume(lane, done)); }

  private:
    std::optional<Transfer> after(std::optional<Transfer> next) {
        const Operation& operation = *operation_;
        // One that was abandoned leaves the slot as it is: nobody will look at it. One that is abandoned from here on is late, as
        // if the kernel had been late: its slot is quarantined until this lane says that it is done, which comes after the copy.
        if (!next && buffer_.memory != nullptr && operation.kind == Kind::load && operation.result.status == Status::ok && !operation.abandoned()) {
            std::memcpy(slot_, buffer_.memory, operation.bytes);
        }
        return next;
    }

    const std::unique_ptr<BlockWork> inner_;
    const std::shared_ptr<Operation> operation_;
    const std::shared_ptr<BounceBuffers> buffers_;
    Region buffer_;  // empty: straight to the slot
    std::byte* const slot_;
};

}  // namespace

BounceBuffers::BounceBuffers(unsigned buffers) : huge_(thp_bytes()), left_(buffers < bounce_buffers_max ? buffers : bounce_buffers_max) {
    free_.reserve(left_);
}

Region BounceBuffers::take(uint64_t bytes) {
    if (huge_ == 0) return {};
    const uint64_t size = round_up(bytes, huge_);
    Region in_the_way;
    bool room = false;
    {
        std::lock_guard<std::mutex> hold(mutex_);
        if (closed_) return {};
        for (auto each = free_.rbegin(); each != free_.rend(); ++each) {  // the one that was used last: it is in the cache
            if (each->bytes < bytes) continue;
            const Region buffer = *each;
            free_.erase(std::next(each).base());
            return buffer;
        }
        if (pause_ > 0) {
            --pause_;
            return {};
        }
        const auto there_is_room = [&] { return left_ > 0 && bytes_ + size <= bounce_pool_bytes_max; };
        if (!there_is_room() && !free_.empty()) {  // one of those that are too small
            in_the_way = free_.front();
            free_.erase(free_.begin());
            bytes_ -= in_the_way.bytes;
            ++left_;
        }
        room = there_is_room();
        if (room) {
            --left_;
            bytes_ += size;
        }
    }
    if (in_the_way.memory != nullptr) munmap(in_the_way.memory, in_the_way.bytes);
    return room ? make(size) : Region{};
}

Region BounceBuffers::make(uint64_t size) {
    const Region made = make_buffer(size, huge_);
    if (made.memory != nullptr) return made;
    std::lock_guard<std::mutex> hold(mutex_);
    bytes_ -= size;
    ++left_;
    pause_ = bounce_pause_takes;
    return {};
}

void BounceBuffers::give(Region buffer) noexcept {
    {
        std::lock_guard<std::mutex> hold(mutex_);
        if (!closed_) {
            free_.push_back(buffer);
            return;
        }
    }
    munmap(buffer.memory, buffer.bytes);
}

void BounceBuffers::close() {
    std::vector<Region> over;
    {
        std::lock_guard<std::mutex> hold(mutex_);
        closed_ = true;
        over.swap(free_);
    }
    for (const Region& buffer : over) munmap(buffer.memory, buffer.bytes);
}

MakeWork through_bounce(MakeWork make, Region arena, std::shared_ptr<BounceBuffers> buffers) {
    return [make = std::move(make), arena, buffers = std::move(buffers)](std::shared_ptr<Operation> operation) -> std::unique_ptr<BlockWork> {
        auto work = make(operation);
        const bool moves = operation->kind == Kind::load || operation->kind == Kind::store;
        const bool in_arena = operation->memory >= arena.memory && operation->memory < arena.memory + arena.bytes;
        if (!moves || !in_arena || operation->bytes < bounce_bytes_min || operation->bytes > bounce_bytes_max) return work;
        return std::make_unique<Detour>(std::move(work), std::move(operation), buffers);
    };
}

}  // namespace kvlane
