// bounce.h — the detour of a transfer through private huge pages, where the arena lies on small ones.
//
// A request of 1 MiB on 4 KiB pages is 256 segments, more than a virtio disk takes at once; through a
// buffer on one huge page and a copy into the slot, while the bytes are hot from the checksum, it takes
// half the time. Private huge pages need nothing of the host (`madvise` is the usual policy), shared ones do.
//
// The buffers belong to the pool, not to the lane: a thousand stuck lanes must not hold a thousand of
// them. One that is with the kernel stays with its work, however long; when none is left, a transfer goes
// straight to its slot. Nothing changes in the book: the slot is quarantined until its lane is back, so
// that the copy, too, happens before anybody else has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "arena.h"
#include "block_work.h"

namespace kvlane {

inline constexpr uint64_t bounce_bytes_min = 64 << 10;  // below, the copy costs more than the segments
inline constexpr uint64_t bounce_bytes_max = 8 << 20;   // larger blocks are rare, and the memory is the engine's
inline constexpr unsigned bounce_buffers_max = 8;       // of a pool: more at once do not make a device faster
inline constexpr uint64_t bounce_pool_bytes_max = 16 << 20;  // of a pool, all of them: with two classes a device a small part of any arena
inline constexpr unsigned bounce_pause_takes = 1024;    // after the kernel had no huge page: looking for one takes long where memory is in pieces

class BounceBuffers {
  public:
    explicit BounceBuffers(unsigned buffers);
    BounceBuffers(const BounceBuffers&) = delete;
    BounceBuffers& operator=(const BounceBuffers&) = delete;
    ~BounceBuffers() { close(); }

    // On huge pages, `bytes` or larger; empty where there is none to be had. Touches memory, makes no call on a mount.
    Region take(uint64_t bytes);
    void give(Region buffer) noexcept;
    // The memory goes back to the kernel, what is still out as it comes back. A pool is never forgotten, so it cannot wait for that.
    void close();

  private:
    Region make(uint64_t size);

    const uint64_t huge_;
    std::mutex mutex_;  // never held during a system call
    std::vector<Region> free_;  // has room for all there may be
    unsigned left_;       // that may still be made
    uint64_t bytes_ = 0;  // of all there are
    unsigned pause_ = 0;
    bool closed_ = false;
};

using MakeWork = std::function<std::unique_ptr<BlockWork>(std::shared_ptr<Operation>)>;

// `make`, with the detour for loads and stores between `arena` and the disk. None once the lane knows that the mount takes no
// O_DIRECT: the kernel copies from its own pages there, and a second copy gains nothing.
MakeWork through_bounce(MakeWork make, Region arena, std::shared_ptr<BounceBuffers> buffers);

}  // namespace kvlane
