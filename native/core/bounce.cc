#include "bounce.h"

#include <sys/mman.h>

#include <cstring>
#include <optional>
#include <utility>

#include "huge_pages.h"

namespace kvlane {

namespace {

// On huge pages as the page tables have it, or empty.
Region make_buffer(uint64_t size, uint64_t huge) {
    void* const room = mmap(nullptr, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return {};
    auto* const begin = static_cast<std::byte*>(room);
    std::byte* const memory = begin + (huge - reinterpret_cast<uintptr_t>(room) % huge) % huge;
    if (memory > begin) munmap(begin, static_cast<size_t>(memory - begin));
    munmap(memory + size, static_cast<size_t>(begin + huge - memory));
    madvise(memory, size, MADV_HUGEPAGE);
    for (uint64_t at = 0; at < size; at += huge) memory[at] = std::byte{0};
    if (thp_seen(memory, size).anonymous >= size) return Region{memory, size};
    munmap(memory, size);
    return {};
}

// Inside, everything is as without: only `memory` of the operation is another while its work goes on.
class Detour final : public BlockWork {
  public:
    Detour(std::unique_ptr<BlockWork> inner, std::shared_ptr<Operation> operation, std::shared_ptr<BounceBuffers> buffers, Region buffer)
        : inner_(std::move(inner)), operation_(std::move(operation)), buffers_(std::move(buffers)), buffer_(buffer), slot_(operation_->memory) {
        operation_->memory = buffer_.memory;
    }

    ~Detour() override {
        operation_->memory = slot_;
        buffers_->give(buffer_);
    }

    std::optional<Transfer> start(LaneContext& lane) override {
        if (operation_->kind == Kind::store) std::memcpy(buffer_.memory, slot_, operation_->bytes);
        return after(inner_->start(lane));
    }

    std::optional<Transfer> resume(LaneContext& lane, int64_t done) override { return after(inner_->resume(lane, done)); }

  private:
    std::optional<Transfer> after(std::optional<Transfer> next) {
        const Operation& operation = *operation_;
        // One that was abandoned leaves the slot as it is: nobody will look at it.
        if (!next && operation.kind == Kind::load && operation.result.status == Status::ok && !operation.abandoned()) {
            std::memcpy(slot_, buffer_.memory, operation.bytes);
        }
        return next;
    }

    const std::unique_ptr<BlockWork> inner_;
    const std::shared_ptr<Operation> operation_;
    const std::shared_ptr<BounceBuffers> buffers_;
    const Region buffer_;
    std::byte* const slot_;
};

}  // namespace

BounceBuffers::~BounceBuffers() {
    for (const Region& buffer : free_) munmap(buffer.memory, buffer.bytes);
}

Region BounceBuffers::take(uint64_t bytes) {
    const uint64_t size = huge_ == 0 ? 0 : round_up(bytes, huge_);
    {
        std::lock_guard<std::mutex> hold(mutex_);
        if (useless_) return {};
        for (auto each = free_.rbegin(); each != free_.rend(); ++each) {  // the one that was used last: it is in the cache
            if (each->bytes < bytes) continue;
            const Region buffer = *each;
            free_.erase(std::next(each).base());
            return buffer;
        }
        if (!free_.empty()) {  // too small, all of them: one of them makes room
            munmap(free_.front().memory, free_.front().bytes);
            bytes_ -= free_.front().bytes;
            free_.erase(free_.begin());
            left_++;
        }
        if (left_ == 0 || size == 0 || bytes_ + size > bounce_pool_bytes_max) return {};
        left_--;
        bytes_ += size;
    }
    const Region made = make_buffer(size, huge_);
    if (made.memory != nullptr) return made;
    std::lock_guard<std::mutex> hold(mutex_);
    useless_ = true;
    return {};
}

void BounceBuffers::give(Region buffer) {
    std::lock_guard<std::mutex> hold(mutex_);
    free_.push_back(buffer);
}

MakeWork through_bounce(MakeWork make, Region arena, std::shared_ptr<BounceBuffers> buffers) {
    return [make = std::move(make), arena, buffers = std::move(buffers)](std::shared_ptr<Operation> operation) -> std::unique_ptr<BlockWork> {
        auto work = make(operation);
        const bool moves = operation->kind == Kind::load || operation->kind == Kind::store;
        const bool in_arena = operation->memory >= arena.memory && operation->memory < arena.memory + arena.bytes;
        if (!moves || !in_arena || operation->bytes < bounce_bytes_min || operation->bytes > bounce_bytes_max) return work;
        const Region buffer = buffers->take(operation->bytes);
        if (buffer.memory == nullptr) return work;
        return std::make_unique<Detour>(std::move(work), std::move(operation), buffers, buffer);
    };
}

}  // namespace kvlane
