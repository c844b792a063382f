#include "loop_bell.h"

#include <stdlib.h>

// Of libuv's interface what is needed: its header is not there everywhere, and these have been as they are since its 1.0,
// but uv_handle_set_data since 1.19. Handles are made by the size that libuv says.
extern "C" {
size_t uv_handle_size(int type);
void uv_handle_set_data(void* handle, void* data);
void* uv_handle_get_data(const void* handle);
int uv_poll_init(struct uv_loop_s* loop, void* handle, int fd);
int uv_poll_start(void* handle, int events, void (*callback)(void* handle, int status, int events));
void uv_close(void* handle, void (*callback)(void* handle));
void uv_ref(void* handle);
void uv_unref(void* handle);
const char* uv_strerror(int error);
}

namespace kvlane {

namespace {
constexpr int uv_poll = 8;      // of uv_handle_type
constexpr int uv_readable = 1;  // of uv_poll_event
}  // namespace

std::string LoopBell::watch(Napi::Env env, const Bell& bell, std::function<void()> heard) {
    if (bell.error() != 0) return uv_strerror(-bell.error());
    uv_loop_s* loop = nullptr;
    if (napi_get_uv_event_loop(env, &loop) != napi_ok) return "there is no loop";
    void* handle = calloc(1, uv_handle_size(uv_poll));
    if (handle == nullptr) return "no memory";
    int error = uv_poll_init(loop, handle, bell.fd());
    if (error != 0) {
        free(handle);
        return uv_strerror(error);
    }
    env_ = env;
    bell_ = &bell;
    heard_ = std::move(heard);
    handle_ = handle;
    uv_handle_set_data(handle, this);
    error = uv_poll_start(handle, uv_readable, on_ring);
    if (error == 0 && napi_add_async_cleanup_hook(env, on_cleanup, this, &hook_) != napi_ok) error = -ENOMEM;
    if (error != 0) {
        handle_ = nullptr;
        uv_close(handle, free);
        return uv_strerror(error);
    }
    uv_unref(handle);
    return "";
}

void LoopBell::hold(bool held) {
    if (handle_ == nullptr) return;
    if (held) uv_ref(handle_);
    else uv_unref(handle_);
}

void LoopBell::on_ring(void* handle, int, int) {
    LoopBell& self = *static_cast<LoopBell*>(uv_handle_get_data(handle));
    self.bell_->hear();
    if (self.handle_ == nullptr) return;
    Napi::HandleScope scope(self.env_);
    self.heard_();
}

// The environment goes down, and waits for the loop to have let go of the handle.
void LoopBell::on_cleanup(napi_async_cleanup_hook_handle, void* data) {
    LoopBell& self = *static_cast<LoopBell*>(data);
    void* handle = self.handle_;
    self.handle_ = nullptr;
    uv_close(handle, on_closed);
}

void LoopBell::on_closed(void* handle) {
    const LoopBell& self = *static_cast<const LoopBell*>(uv_handle_get_data(handle));
    napi_remove_async_cleanup_hook(self.hook_);
    free(handle);
}

}  // namespace kvlane
