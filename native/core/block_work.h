// block_work.h — one operation on its way through the file system, as a machine that both engines drive.
//
// start() makes every call that only a thread can make (open, stat, mkdir …) and returns the one
// transfer that an engine may do its own way: a pread/pwrite in `threads`, an iocb in `aio`. The
// engine does it and calls resume(); there may be another transfer (fsync after write), until
// nothing is left and operation.result is complete.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "operation.h"

namespace kvlane {

class LaneContext;  // lane_context.h: watched calls, root directories, private aligned pages — all of one lane

struct Transfer {
    enum class What : uint8_t { read, write, fsync };
    What what = What::read;
    int fd = -1;
    iovec parts[3] = {};  // header page, payload, tail page
    int part_count = 0;
    int64_t offset = 0;
    Phase phase() const { return what == What::read ? Phase::read : what == What::write ? Phase::write : Phase::fsync; }
};

class BlockWork {
  public:
    virtual ~BlockWork() = default;
    // `done` is bytes transferred, or a negative errno.
    virtual std::optional<Transfer> start(LaneContext& lane) = 0;
    virtual std::optional<Transfer> resume(LaneContext& lane, int64_t done) = 0;
};

std::unique_ptr<BlockWork> make_block_work(std::shared_ptr<Operation> operation);

}  // namespace kvlane
