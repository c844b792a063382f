// directory.h — the entries of one directory, a page of them at a call.
//
// What comes and goes meanwhile may be told or not, or twice: that is how file systems have it. The page is
// the lane's tail page, so nothing else may use that before the reader is through.
#pragma once

#include <cstdint>
#include <string_view>

#include "lane_context.h"

namespace kvlane {

class DirectoryReader {
  public:
    struct Entry {
        uint64_t inode = 0;
        uint64_t next = 0;      // where the one behind it is found, for LaneContext::seek
        std::string_view name;  // until the next call
    };

    // `fd`: open for reading, O_PATH will not do.
    DirectoryReader(LaneContext& lane, Operation& operation, int fd) : lane_(lane), op_(operation), fd_(fd) {}

    // 1 with the next entry, neither "." nor ".."; 0 at the end; or a negative errno.
    int next(Entry& entry);

  private:
    LaneContext& lane_;
    Operation& op_;
    const int fd_;
    size_t got_ = 0;
    size_t at_ = 0;
};

}  // namespace kvlane
