// engine.h — what a lane does all its life: take operations, bring them through the kernel, finish them.
//
// An engine is the loop of one lane. `threads` has one operation at the kernel at a time, `aio` a
// small batch. Each operation sits on a *seat*: a watch word, and what the pool knows of it. The loop
// runs in the lane's thread, which has left the shared descriptor table: every descriptor it uses it
// must have opened itself, and it talks to the rest of the process through Lane only.
//
// The loop of every engine, for one seat, with a LaneContext of that seat (sharing the lane's RootCache):
//     auto operation = lane.take(seat, Wait::yes);      nullptr: the lane must leave, return
//     auto work = lane.make_work(operation);
//     auto next = work->start(context);
//     while (next) next = work->resume(context, context.transfer(*operation, *next));    or an iocb
//     work.reset();
//     context.close_leftovers(*operation);              what a work that threw did not close, while still watched
//     lane.finish(seat);                                the completion goes out; `operation` is let go
// A transfer that an engine does its own way keeps the rules of LaneContext::transfer: none is started
// unless context.still_wanted(*operation) (resume with -call_refused then), its time is added to
// operation->result.kernel_us, and lane.word(seat) tells while the kernel has it: enter(phase,
// Syscall::io_getevents, when it was submitted), leave() when it is back. A word in io_getevents says
// that the operation, but not the thread, is with the kernel.
#pragma once

#include <cstdint>
#include <memory>

#include "lane.h"

namespace kvlane {

enum class EngineKind : uint8_t { threads, aio };
const char* engine_name(EngineKind kind);

// Operations one aio lane has at the kernel at most: enough to keep a device busy, few enough that a
// lane lost in a submission takes little with it.
inline constexpr unsigned aio_seats = 8;
inline constexpr unsigned threads_seats = 1;

// Both return when lane.take() has said that the lane must leave.
void run_threads_engine(Lane& lane);

// False: the kernel gives no AIO context (fs.aio-max-nr); nothing was taken. It has said so by
// lane.fall_back(), and the lane goes on with run_threads_engine on seat 0.
bool run_aio_engine(Lane& lane);

}  // namespace kvlane
