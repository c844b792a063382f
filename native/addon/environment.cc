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
    on_events_ = Napi::Persistent(on_events);
    context_ = std::make_unique<Napi::AsyncContext>(env_, "kvlane events");
    if (const std::string refusal = bell_.watch(env_, core_->bell(), [this] { deliver(); }); !refusal.empty()) {
        throw Napi::Error::New(env_, "the loop cannot be woken: " + refusal);
    }
    // Marks and detaches, joins nothing.
    env_.AddCleanupHook([](Core* core) { core->close(); }, core_);
    const int error = core_->start(stall_us, stuck_process_max);
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
    bell_.hold(expecting);
}

PackedEvents Environment::collect() {
    const auto batch = core_->take();
    const PackedEvents packed = to_js(env_, batch);
    hold_loop_while_expecting();
    return packed;
}

// On the JavaScript thread. Takes whatever is there now, which may be more than the ring was for.
void Environment::deliver() {
    const PackedEvents packed = collect();
    if (packed.empty) return;
    try {
        on_events_.MakeCallback(env_.Global(), {packed.events, packed.rows}, *context_);
    } catch (const Napi::Error& error) {
        // Nobody above would see it: an uncaught exception like any other. None is there when a Worker is terminated.
        if (!error.IsEmpty()) napi_fatal_exception(env_, error.Value());
    }
    // The callback armed timers and submitted through the functions above, which kept the reference.
}

}  // namespace kvlane
