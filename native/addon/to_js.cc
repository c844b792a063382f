#include "to_js.h"

#include <string.h>

#include <vector>

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

constexpr size_t columns = 5;  // of a completion's row: id, code, errno, kernel_us, stored_bytes

// Most completions: nothing in them but numbers.
bool tells_in_numbers(const Event& event) {
    if (event.type != Event::Type::done || event.operation->kind == Kind::lookup) return false;
    return event.operation->result.aside_inode == 0 && event.operation->result.text.empty();
}

void append_row(std::vector<double>& rows, const Event& event) {
    const Result& result = event.operation->result;
    const unsigned flags = (result.kernel_us_known ? 1U : 0U) | (result.uncached ? 2U : 0U) | (result.kept ? 4U : 0U) | (event.late ? 8U : 0U);
    rows.push_back(static_cast<double>(event.operation->id));
    rows.push_back(static_cast<double>(static_cast<unsigned>(result.status) | static_cast<unsigned>(result.phase) << 8 | flags << 16));
    rows.push_back(result.error);
    rows.push_back(static_cast<double>(result.kernel_us));
    rows.push_back(static_cast<double>(result.stored_bytes));
}

Napi::Array words(Napi::Env env, size_t count, auto&& word) {
    Napi::Array all = Napi::Array::New(env, count);
    for (uint32_t i = 0; i < count; ++i) all.Set(i, word(i));
    return all;
}

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

}  // namespace

PackedEvents to_js(Napi::Env env, const CompletionQueue::Batch& batch) {
    Napi::Array events = Napi::Array::New(env);
    std::vector<double> rows;
    rows.reserve(columns * batch.events.size());
    uint32_t count = 0;
    uint32_t run = 0;
    const auto end_run = [&] {
        if (run > 0) events.Set(count++, run);
        run = 0;
    };
    for (const Event& event : batch.events) {
        if (tells_in_numbers(event)) {
            append_row(rows, event);
            ++run;
        } else {
            end_run();
            events.Set(count++, to_js(env, event));
        }
    }
    end_run();
    // Last: what completed by its deadline is heard of before the deadline is.
    if (batch.timer) {
        Napi::Object timer = Napi::Object::New(env);
        timer.Set("type", "timer");
        events.Set(count++, timer);
    }
    if (rows.empty()) return {events, env.Null(), count == 0};
    auto packed = Napi::Float64Array::New(env, rows.size());
    memcpy(packed.Data(), rows.data(), rows.size() * sizeof(double));
    return {events, packed, false};
}

Napi::Object words_to_js(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("statuses", words(env, static_cast<size_t>(Status::fenced) + 1, [](uint32_t i) { return status_name(static_cast<Status>(i)); }));
    object.Set("states", words(env, static_cast<size_t>(State::done) + 1, [](uint32_t i) { return state_name(static_cast<State>(i)); }));
    object.Set("phases", words(env, static_cast<size_t>(Phase::close) + 1, [](uint32_t i) { return phase_name(static_cast<Phase>(i)); }));
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

Napi::Object to_js(Napi::Env env, const RecyclePool& pool) {
    const RecyclePool::Figures figures = pool.figures();
    Napi::Object object = Napi::Object::New(env);
    object.Set("on", pool.on());
    object.Set("files", number(env, figures.files));
    object.Set("bytes", number(env, figures.bytes));
    object.Set("recycled", number(env, figures.recycled));
    object.Set("kept", number(env, figures.kept));
    object.Set("dropped", number(env, figures.dropped));
    object.Set("lost", number(env, figures.lost));
    return object;
}

Napi::Value to_js(Napi::Env env, const Core::Settled& settled) {
    static_assert(static_cast<uint64_t>(State::done) < 4 && static_cast<uint64_t>(Phase::close) < 16);
    constexpr uint64_t since_us_max = uint64_t{1} << (53 - 6);  // with six bits beside it a double still holds it; four and a half years
    const uint64_t code = static_cast<uint64_t>(settled.where.phase) * 4 + static_cast<uint64_t>(settled.where.state);
    if (settled.found.empty() && settled.where.since_us < since_us_max) return number(env, settled.where.since_us * 64 + code);
    Napi::Object object = Napi::Object::New(env);
    object.Set("code", number(env, code));
    object.Set("sinceUs", number(env, settled.where.since_us));
    if (!settled.found.empty()) object.Set("found", bytes_to_js(env, settled.found.size(), [&](size_t i) { return settled.found[i]; }));
    return object;
}

Napi::Object to_js(Napi::Env env, const Arena& arena) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("fd", arena.fd);
    object.Set("bytes", number(env, arena.region.bytes));
    object.Set("pageBytes", number(env, arena.page_bytes));
    object.Set("hugeBytes", number(env, arena.huge_bytes));
    static constexpr const char* backings[] = {"shmem", "thp", "hugetlb"};
    object.Set("backing", backings[static_cast<size_t>(arena.backing)]);
    object.Set("advice", arena.advice);
    return object;
}

}  // namespace kvlane
