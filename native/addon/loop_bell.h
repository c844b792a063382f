// loop_bell.h — the bell on the loop of one JavaScript environment.
//
// libuv watches the eventfd itself, so that whoever has news wakes the loop with one write. A thread-safe function of
// Node-API would do the same from threads that share the descriptor table, which lanes do not: a thread more between
// each completion and the loop, and a queue and a mutex that are Node's.
#pragma once

#include <napi.h>

#include <functional>

#include "bell.h"

namespace kvlane {

class LoopBell {
  public:
    // `heard` on the JavaScript thread, in a handle scope, until the environment goes down. The loop does not live for it
    // unless it is held. Empty, or why it cannot be watched.
    std::string watch(Napi::Env env, const Bell& bell, std::function<void()> heard);
    void hold(bool held);

  private:
    static void on_ring(void* handle, int status, int events);
    static void on_closed(void* handle);
    static void on_cleanup(napi_async_cleanup_hook_handle hook, void* self);

    napi_env env_ = nullptr;
    const Bell* bell_ = nullptr;
    std::function<void()> heard_;
    void* handle_ = nullptr;  // libuv's, of the size it says
    napi_async_cleanup_hook_handle hook_ = nullptr;
};

}  // namespace kvlane
