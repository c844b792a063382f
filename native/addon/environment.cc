#include "environment.h"

#include <string.h>

#include "to_js.h"

namespace kvlane {

void Environment::start(uint64_t stall_us, unsigned stuck_process_max, Napi::Function on_events) {
    if (core_->started()) throw Napi::Error::New(env_, "start() was called before; it works once in each environment");
    if (const std::string missing = Core::missing(); !missing.empty()) {
        auto refusal = Napi::Error::New(env_, missing);
        refusal.Set("code", "KVLANE_NO_OPENAT2");
        throw refusal;
    }
    doorbell_ = Doorbell::New(env_, on_events, "kvlane events", 0, 1, this);
    doorbell_.Unref(env_);
    // After the thread-safe function was made, so that it runs before that one's own: hooks run last in,
    // first out, and Node frees the function while the courier might still ring. Marks and detaches,
    // joins nothing.
    env_.AddCleanupHook([](Core* core) { core->close(); }, core_);
    const int error = core_->start(stall_us, stuck_process_max, [this] { doorbell_.NonBlockingCall(); });
    if (error != 0) {
        auto failure = Napi::Error::New(env_, std::string("no thread for the courier and the supervisor: ") + strerrorname_np(error));
        failure.Set("code", strerrorname_np(error));
        throw failure;
    }
    hold_loop_while_expecting();
}

void Environment::hold_loop_while_expecting() {
    if (!core_->started()) return;
    const bool expecting = core_->expects_news();
    if (expecting == holding_) return;
    holding_ = expecting;
    if (expecting) {
        doorbell_.Ref(env_);
    } else {
        doorbell_.Unref(env_);
    }
}

// On the JavaScript thread. Takes whatever is there now, which may be more than the ring was for.
void Environment::deliver(Napi::Env env, Napi::Function on_events, Environment* self, void*) {
    if (env == nullptr || on_events == nullptr) return;  // the environment is going down
    Napi::HandleScope scope(env);
    const auto batch = self->core_->take();
    const PackedEvents packed = to_js(env, batch);
    self->hold_loop_while_expecting();
    if (packed.empty) return;
    try {
        on_events.Call({packed.events, packed.rows});
    } catch (const Napi::Error& error) {
        // Left to itself Node 20 only prints a deprecation warning for what a thread-safe function's
        // callback throws, and goes on. It is an uncaught exception like any other.
        napi_fatal_exception(env, error.Value());
    }
    // The callback armed timers and submitted through the functions above, which kept the reference.
}

}  // namespace kvlane
