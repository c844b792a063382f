// addon.cc — the functions that native/index.ts declares, one lambda each. All return at once.
//
// C++ exceptions are for this directory only: they become JavaScript errors here and never meet a lane.
#include <napi.h>

#include <string.h>

#include "environment.h"
#include "from_js.h"
#include "header.h"
#include "leave.h"
#include "to_js.h"

namespace kvlane {

namespace {

using Info = Napi::CallbackInfo;

Environment& environment(const Info& info) { return *info.Env().GetInstanceData<Environment>(); }
Core& core(const Info& info) { return environment(info).core(); }

LanePool& pool(const Info& info) {
    LanePool* found = core(info).pool(natural(info[0], "pool"));
    if (found == nullptr) throw coded_error(info.Env(), "KVLANE_MISUSE", "no such pool");
    return *found;
}

Napi::Value now_us(const Info& info) { return Napi::Number::New(info.Env(), static_cast<double>(core(info).clock().now_us())); }

void start(const Info& info) {
    if (!info[0].IsObject() || !info[1].IsFunction()) throw coded_error(info.Env(), "KVLANE_MISUSE", "start({stallUs, stuckProcessMax}, onEvents)");
    const Napi::Object options = info[0].As<Napi::Object>();
    if (options.Get("unchecked").ToBoolean()) leave_payloads_unchecked();
    environment(info).start(natural(options.Get("stallUs"), "start: stallUs"),
                            static_cast<unsigned>(natural(options.Get("stuckProcessMax"), "start: stuckProcessMax")), info[1].As<Napi::Function>());
}

void arm_timer(const Info& info) {
    core(info).completions().arm_timer(natural(info[0], "armTimer: atUs"));
    environment(info).hold_loop_while_expecting();
}

Napi::Value keep_arena(const Info& info, std::variant<Arena, ArenaError> made) {
    if (const ArenaError* error = std::get_if<ArenaError>(&made)) throw coded_error(info.Env(), error->code, error->message);
    core(info).arena = std::get<Arena>(made);
    return to_js(info.Env(), core(info).arena);
}

void refuse_second_arena(const Info& info) {
    if (core(info).arena.region.memory != nullptr) throw coded_error(info.Env(), "ARENA_TWICE", "there is an arena already; it stays for the life of the process");
}

// {hugePages, bounce}: the words of the command line.
HugePages arena_wishes(const Info& info) {
    const Napi::Object wishes = info[1].IsObject() ? info[1].As<Napi::Object>() : Napi::Object::New(info.Env());
    const auto word = [&](const char* field, const char* otherwise) {
        const Napi::Value value = wishes.Get(field);
        return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string(otherwise);
    };
    const std::string bounce = word("bounce", "none");
    core(info).bounce_loads = bounce == "loads" || bounce == "all";
    core(info).bounce_stores = bounce == "stores" || bounce == "all";
    HugePages huge_pages = HugePages::automatic;
    if (!huge_pages_named(word("hugePages", "auto"), huge_pages)) throw coded_error(info.Env(), "KVLANE_MISUSE", "hugePages: auto, require, hugetlb, thp or off");
    return huge_pages;
}

Napi::Value adopt_arena(const Info& info) {
    refuse_second_arena(info);
    return keep_arena(info, kvlane::adopt_arena(static_cast<int>(natural(info[0], "adoptArena: fd")), arena_wishes(info)));
}

Napi::Value create_arena(const Info& info) {
    refuse_second_arena(info);
    return keep_arena(info, kvlane::create_arena(natural(info[0], "createArena: bytes"), arena_wishes(info)));
}

Napi::Value observe_arena(const Info& info) {
    if (core(info).arena.huge_bytes > 0) core(info).arena.observe();
    return to_js(info.Env(), core(info).arena);
}

void create_staging(const Info& info) {
    if (core(info).staging.memory != nullptr) throw coded_error(info.Env(), "ARENA_TWICE", "there is staging memory already");
    auto made = kvlane::create_staging(natural(info[0], "createStaging: bytes"));
    if (const ArenaError* error = std::get_if<ArenaError>(&made)) throw coded_error(info.Env(), error->code, error->message);
    core(info).staging = std::get<Region>(made);
}

std::byte* staging_at(const Info& info, uint64_t offset, uint64_t bytes) {
    const Region& staging = core(info).staging;
    if (offset > staging.bytes || bytes > staging.bytes - offset) {
        throw coded_error(info.Env(), "KVLANE_MISUSE", "bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) +
                                                           " are not inside the staging memory of " + std::to_string(staging.bytes) + " bytes");
    }
    return staging.memory + offset;
}

void write_staging(const Info& info) {
    if (!info[1].IsTypedArray()) throw coded_error(info.Env(), "KVLANE_MISUSE", "writeStaging: data must be a Uint8Array");
    const auto data = info[1].As<Napi::Uint8Array>();
    std::byte* to = staging_at(info, natural(info[0], "writeStaging: offset"), data.ByteLength());
    if (data.ByteLength() > 0) memcpy(to, data.Data(), data.ByteLength());
}

Napi::Value read_staging(const Info& info) {
    const uint64_t bytes = natural(info[1], "readStaging: bytes");
    const std::byte* from = staging_at(info, natural(info[0], "readStaging: offset"), bytes);
    return Napi::Buffer<char>::Copy(info.Env(), reinterpret_cast<const char*>(from), bytes);
}

Napi::Value add_mount(const Info& info) { return Napi::Number::New(info.Env(), core(info).add_mount(text(info[0], "addMount: path"))); }

void set_mount_identity(const Info& info) {
    const auto mount = core(info).mount(natural(info[0], "setMountIdentity: mount"));
    if (!mount) throw coded_error(info.Env(), "KVLANE_MISUSE", "setMountIdentity: no such mount");
    if (info[1].IsNull()) {
        mount->set_store_id(std::nullopt);
    } else {
        mount->set_store_id(text(info[1], "setMountIdentity: storeId"));
    }
}

RecyclePool& recycle_pool(const Info& info) {
    const auto mount = core(info).mount(natural(info[0], "mount"));
    if (!mount) throw coded_error(info.Env(), "KVLANE_MISUSE", "recycling: no such mount");
    return mount->recycle;
}

void set_recycling(const Info& info) {
    if (!info[1].IsObject()) throw coded_error(info.Env(), "KVLANE_MISUSE", "setRecycling(mount, {files, bytes, restUs, fileMode})");
    const Napi::Object limits = info[1].As<Napi::Object>();
    recycle_pool(info).set_limits({.files = natural(limits.Get("files"), "setRecycling: files"),
                                   .bytes = natural(limits.Get("bytes"), "setRecycling: bytes"),
                                   .rest_us = natural(limits.Get("restUs"), "setRecycling: restUs"),
                                   .file_mode = static_cast<uint32_t>(natural(limits.Get("fileMode"), "setRecycling: fileMode"))});
}

Napi::Value recycling(const Info& info) { return to_js(info.Env(), recycle_pool(info)); }

Napi::Value create_pool(const Info& info) {
    if (!info[0].IsObject()) throw coded_error(info.Env(), "KVLANE_MISUSE", "createPool({laneClass, lanes, engine, forProbes})");
    const Napi::Object options = info[0].As<Napi::Object>();
    const uint64_t lanes = natural(options.Get("lanes"), "createPool: lanes");
    if (lanes == 0) throw coded_error(info.Env(), "KVLANE_MISUSE", "createPool: lanes must be at least 1");
    const Napi::Value for_probes = options.Get("forProbes");
    if (!for_probes.IsBoolean()) throw coded_error(info.Env(), "KVLANE_MISUSE", "createPool: forProbes must be true or false");
    return Napi::Number::New(info.Env(), core(info).create_pool(lane_class_from_js(options.Get("laneClass"), "createPool: laneClass"), static_cast<unsigned>(lanes),
                                                                engine_from_js(options.Get("engine"), "createPool: engine"), for_probes.As<Napi::Boolean>().Value()));
}

void set_stuck_limit(const Info& info) { pool(info).set_stuck_limit(static_cast<unsigned>(natural(info[1], "setStuckLimit: lanes"))); }

void close_pool(const Info& info) {
    LanePool& closing = pool(info);
    if (closing.state().queued != 0) throw coded_error(info.Env(), "KVLANE_MISUSE", "closePool: operations wait in its queue, and no lane would take them up");
    core(info).close_pool(closing);
}

// The pool that takes operations now.
LanePool& open_pool(const Info& info) {
    if (!core(info).started()) throw coded_error(info.Env(), "KVLANE_MISUSE", "submit: call start() first");
    LanePool& target = pool(info);
    if (core(info).is_closed(target)) throw coded_error(info.Env(), "KVLANE_MISUSE", "submit: the pool was closed");
    return target;
}

void hand_over(const Info& info, LanePool& target, Operations operations) {
    const auto outstanding = core(info).submit(target, std::move(operations));
    environment(info).hold_loop_while_expecting();
    if (outstanding) throw coded_error(info.Env(), "KVLANE_MISUSE", "submit: operation " + std::to_string(*outstanding) + " is outstanding already");
}

void submit(const Info& info) {
    LanePool& target = open_pool(info);
    hand_over(info, target, {operation_from_js(core(info), info[1], target.options().lane_class)});
}

// Lanes begin with the first blocks of a large task while the later ones are unpacked. Each piece wakes the lanes that have come to the end of the
// one before, and a wake-up costs more than a small block: so the pieces grow.
constexpr size_t blocks_at_first = 64;
constexpr size_t growth = 4;

void submit_blocks(const Info& info) {
    LanePool& target = open_pool(info);
    PackedBlocks blocks(core(info), info[1], info[2], info[3], target.options().lane_class);
    for (size_t most = blocks_at_first; blocks.left() > 0; most *= growth) hand_over(info, target, blocks.take(most));
}

Napi::Value abandon(const Info& info) {
    const auto settled = core(info).abandon(natural(info[0], "abandon: id"));
    environment(info).hold_loop_while_expecting();
    return to_js(info.Env(), settled);
}

Napi::Value withdraw(const Info& info) {
    const bool withdrawn = core(info).withdraw(natural(info[0], "withdraw: id"));
    environment(info).hold_loop_while_expecting();
    return Napi::Boolean::New(info.Env(), withdrawn);
}

void hurry(const Info& info) { core(info).hurry(natural(info[0], "hurry: id")); }

// [events, rows], as the callback of start() gets them.
Napi::Value collect(const Info& info) {
    const PackedEvents packed = environment(info).collect();
    Napi::Array both = Napi::Array::New(info.Env(), 2);
    both.Set(0U, packed.events);
    both.Set(1U, packed.rows);
    return both;
}

Napi::Value pool_state(const Info& info) { return to_js(info.Env(), pool(info).state()); }

Napi::Value stuck(const Info& info) {
    const auto calls = core(info).stuck(info[0].ToBoolean());
    Napi::Array array = Napi::Array::New(info.Env(), calls.size());
    for (uint32_t i = 0; i < calls.size(); ++i) array.Set(i, to_js(info.Env(), calls[i]));
    return array;
}

void hard_exit(const Info& info) { leave_now(static_cast<int>(natural(info[0], "hardExit: code"))); }

void watch_parent_js(const Info& info) {
    CompletionQueue* news = &core(info).completions();
    const std::string refusal =
        watch_parent(static_cast<pid_t>(natural(info[0], "watchParent: pid")), [news] { news->push({.type = Event::Type::parent_gone}); });
    if (!refusal.empty()) news->push({.type = Event::Type::notice, .text = refusal});
}

Napi::Value engine_of(const Info& info) { return Napi::String::New(info.Env(), engine_name(pool(info).engine())); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
    env.SetInstanceData(new Environment(env));
    const auto offer = [&](const char* name, auto function) { exports.Set(name, Napi::Function::New(env, function, name)); };
    offer("nowUs", now_us);
    offer("start", start);
    offer("armTimer", arm_timer);
    offer("adoptArena", adopt_arena);
    offer("createArena", create_arena);
    offer("observeArena", observe_arena);
    offer("createStaging", create_staging);
    offer("writeStaging", write_staging);
    offer("readStaging", read_staging);
    offer("addMount", add_mount);
    offer("setMountIdentity", set_mount_identity);
    offer("setRecycling", set_recycling);
    offer("recycling", recycling);
    offer("createPool", create_pool);
    offer("setStuckLimit", set_stuck_limit);
    offer("closePool", close_pool);
    offer("submit", submit);
    offer("submitBlocks", submit_blocks);
    offer("abandon", abandon);
    offer("withdraw", withdraw);
    offer("hurry", hurry);
    offer("collect", collect);
    offer("poolState", pool_state);
    offer("stuck", stuck);
    offer("hardExit", hard_exit);
    offer("watchParent", watch_parent_js);
    offer("engineOf", engine_of);
    exports.Set("words", words_to_js(env));
    exports.Set("layout", packed_layout);
    return exports;
}

}  // namespace

}  // namespace kvlane

static Napi::Object init_kvlane(Napi::Env env, Napi::Object exports) { return kvlane::init(env, exports); }
NODE_API_MODULE(kvlane, init_kvlane)
