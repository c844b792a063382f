#include "to_js.h"

#include <string.h>

namespace kvlane {

namespace {

Napi::Value number(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

Napi::Uint8Array bytes_to_js(Napi::Env env, size_t count, auto&& at) {
    auto bytes = Napi::Uint8Array::New(env, count);
    for (size_t i = 0; i < count; ++i) bytes[i] = at(i);
    return bytes;
}

Napi::Object done_to_js(Napi::Env env, const Operation& operation, bool late) {
    const Result& result = operation.result;
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", "done");
    object.Set("id", number(env, operation.id));
    object.Set("status", status_name(result.status));
    object.Set("errno", result.error);
    object.Set("phase", phase_name(result.phase));
    object.Set("kernelUs", number(env, result.kernel_us));
    object.Set("kernelUsKnown", result.kernel_us_known);
    object.Set("uncached", result.uncached);
    object.Set("kept", result.kept);
    object.Set("storedBytes", number(env, result.stored_bytes));
    // A string: inode numbers use all 64 bits on some file systems. Empty: nothing to set aside. from_js.cc reads it.
    object.Set("inode", result.aside_inode == 0 ? std::string() : std::to_string(result.aside_inode) + "@" + std::to_string(result.aside_modified_ns));
    object.Set("text", result.text);
    object.Set("late", late);
    if (operation.kind == Kind::lookup) {
        object.Set("found", bytes_to_js(env, operation.found.size(), [&](size_t i) { return operation.found[i].load(std::memory_order_relaxed); }));
    }
    return object;
}

}  // namespace

Napi::Object to_js(Napi::Env env, const Event& event) {
    if (event.type == Event::Type::done) return done_to_js(env, *event.operation, event.late);
    Napi::Object object = Napi::Object::New(env);
    switch (event.type) {
        case Event::Type::done: break;
        case Event::Type::stalled:
            object.Set("type", "stalled");
            object.Set("call", to_js(env, event.call));
            break;
        case Event::Type::recovered:
            object.Set("type", "recovered");
            object.Set("call", to_js(env, event.call));
            break;
        case Event::Type::parent_gone: object.Set("type", "parent_gone"); break;
        case Event::Type::notice:
            object.Set("type", "notice");
            object.Set("text", event.text);
            break;
    }
    return object;
}

Napi::Object timer_to_js(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", "timer");
    return object;
}

Napi::Object to_js(Napi::Env env, const CallReport& call) {
    const Operation* operation = call.operation.get();
    Napi::Object object = Napi::Object::New(env);
    object.Set("id", operation == nullptr ? Napi::Number::New(env, -1) : number(env, operation->id));
    object.Set("pool", call.pool);
    object.Set("kind", operation == nullptr ? "leave" : kind_name(operation->kind));
    object.Set("tid", call.tid);
    object.Set("phase", phase_name(call.phase));
    object.Set("syscall", syscall_name(call.call));
    object.Set("sinceUs", number(env, call.since_us));
    object.Set("forUs", number(env, call.for_us));
    object.Set("abandoned", call.abandoned);
    object.Set("namespace", operation == nullptr ? std::string() : operation->name_space);
    object.Set("hex", operation == nullptr ? std::string() : operation->hex);
    return object;
}

Napi::Object to_js(Napi::Env env, const PoolState& state) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("queued", number(env, state.queued));
    object.Set("running", number(env, state.running));
    object.Set("stuck", number(env, state.stuck));
    object.Set("lanes", number(env, state.lanes));
    object.Set("oldestSinceUs", number(env, state.oldest_since_us));
    Napi::Array ids = Napi::Array::New(env, state.oldest_ids.size());
    for (uint32_t i = 0; i < state.oldest_ids.size(); ++i) ids.Set(i, number(env, state.oldest_ids[i]));
    object.Set("oldestIds", ids);
    object.Set("runningBytes", number(env, state.running_bytes));
    return object;
}

Napi::Object to_js(Napi::Env env, const Core::Settled& settled) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("state", state_name(settled.where.state));
    object.Set("phase", phase_name(settled.where.phase));
    object.Set("sinceUs", number(env, settled.where.since_us));
    if (!settled.found.empty()) object.Set("found", bytes_to_js(env, settled.found.size(), [&](size_t i) { return settled.found[i]; }));
    return object;
}

Napi::Object to_js(Napi::Env env, const Arena& arena) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("fd", arena.fd);
    object.Set("bytes", number(env, arena.region.bytes));
    object.Set("pageBytes", number(env, arena.page_bytes));
    object.Set("backing", arena.backing == Arena::Backing::hugetlb ? "hugetlb" : "shmem");
    return object;
}

}  // namespace kvlane
