// engine_threads.cc — one operation at a time, with the calls everybody knows: preadv, pwritev, fsync.
#include <errno.h>

#include "engine.h"
#include "lane_context.h"

namespace kvlane {

namespace {

void perform(Lane& lane, LaneContext& context, std::shared_ptr<Operation> operation) {
    auto work = lane.make_work(operation);
    auto next = work->start(context);
    while (next) next = work->resume(context, context.transfer(*operation, *next));
}

}  // namespace

void run_threads_engine(Lane& lane) {
    LaneContext context(posix_file_system(), lane.word(0), lane.clock());
    while (auto operation = lane.take(0, Wait::yes)) {
        try {
            perform(lane, context, operation);
        } catch (...) {  // std::bad_alloc; nothing else throws here, and what leaves a thread ends the process
            operation->result.status = Status::io_error;
            operation->result.error = ENOMEM;
        }
        context.close_leftovers(*operation);
        lane.finish(0);
    }
    context.close_roots();
}

}  // namespace kvlane
