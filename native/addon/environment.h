// environment.h — what the addon keeps for one JavaScript environment (main thread or Worker).
//
// The loop is woken through one typed thread-safe function that only the courier calls. It is
// referenced exactly while somebody waits for news: while operations that were not abandoned are
// outstanding, or a timer is armed, the process must not end by running out of work; but a call that
// never comes back must not keep it alive. (A sidecar lives by its stdin besides.)
#pragma once

#include <napi.h>

#include "core.h"

namespace kvlane {

class Environment {
  public:
    explicit Environment(Napi::Env env) : env_(env), core_(new Core) {}  // the core is leaked: see core.h

    Core& core() { return *core_; }
    void start(uint64_t stall_us, unsigned stuck_process_max, Napi::Function on_events);
    // Keeps the loop's reference in step with what is expected; after each call that may change it.
    void hold_loop_while_expecting();

  private:
    static void deliver(Napi::Env env, Napi::Function on_events, Environment* self, void*);
    using Doorbell = Napi::TypedThreadSafeFunction<Environment, void, deliver>;

    Napi::Env env_;
    Core* const core_;
    Doorbell doorbell_;
    bool holding_ = false;
};

}  // namespace kvlane
