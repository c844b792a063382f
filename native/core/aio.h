// aio.h — Linux native AIO by its four system calls, without libaio.
//
// Only the waiting has a time limit. io_submit can hang as any call on the mount can (a cold extent
// map, an extending write, a full device queue), io_destroy waits for everything in flight, and so
// does the end of a process: see keeper.h.
#pragma once

#include <linux/aio_abi.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

namespace kvlane {

class AioCalls {
  public:
    virtual ~AioCalls() = default;
    // All of them: a value ≥ 0 or a negative errno.
    virtual int setup(unsigned events, aio_context_t& context) = 0;
    virtual int submit(aio_context_t context, iocb& request) = 0;
    // At least one event, or 0 after `timeout_us` or a nudge. Only the thread of the context calls it.
    virtual int wait(aio_context_t context, io_event* events, unsigned count, uint64_t timeout_us) = 0;
    // Ends the wait that the thread `tid` is in, or else its next one. Any thread; never blocks.
    virtual void nudge(pid_t tid) = 0;
    virtual int destroy(aio_context_t context) = 0;  // only with nothing in flight
};
AioCalls& kernel_aio();

// What the engine uses; tests put in their own before the first lane, and never take it out again while one lives.
AioCalls& aio_calls();
void set_aio_calls_for_testing(AioCalls* calls);  // nullptr: the kernel's

// Why there is no context, and what to do about it.
std::string aio_refusal(int error);

}  // namespace kvlane
