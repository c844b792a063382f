// probe.h — what a probe reads: a block of its own, too small to matter, that no cache answers for.
#pragma once

#include "lane_context.h"

namespace kvlane {

inline constexpr uint64_t probe_payload_bytes = 4096;

// Makes <root>/probe/block if it is not there. 0, or a negative errno; EROFS and EACCES are no harm (see probe.cc).
int make_probe_block(LaneContext& lane, Operation& operation, int root);

}  // namespace kvlane
