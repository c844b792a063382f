// environment.h — what the addon keeps for one JavaScript environment (main thread or Worker).
//
// The loop is woken by the core's bell. It lives for it
// exactly while somebody waits for news: while operations that were not abandoned are
// outstanding, or a timer is armed, the process must not end by running out of work; but a call that
// never comes back must not keep it alive. (A sidecar lives by its stdin besides.)
#pragma once

#include <napi.h>

#include <memory>

#include "core.h"
#include "loop_bell.h"
#include "to_js.h"

namespace kvlane {

class Environment {
  public:
    explicit Environment(Napi::Env env) : env_(env), core_(new Core), bell_(*new LoopBell) {}  // the core is leaked: see core.h

    Core& core() { return *core_; }
    void start(uint64_t stall_us, unsigned stuck_process_max, Napi::Function on_events);
    // Keeps the loop's reference in step with what is expected; after each call that may change it.
    void hold_loop_while_expecting();

    // What there is to tell, taken out of the queue; the loop's reference follows.
    PackedEvents collect();

  private:
    void deliver();

    Napi::Env env_;
    Core* const core_;
    LoopBell& bell_;  // outlives this: the loop closes it
    Napi::FunctionReference on_events_;
    std::unique_ptr<Napi::AsyncContext> context_;
    bool holding_ = false;
};

}  // namespace kvlane
