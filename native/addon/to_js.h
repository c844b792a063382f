// to_js.h — what happened in the core, as the objects that native/index.ts describes.
#pragma once

#include <napi.h>

#include "core.h"

namespace kvlane {

// Counts the changes of what crosses packed, either way: native/packed.ts asks for this one and no other.
inline constexpr uint32_t packed_layout = 4;

// What was heard, in its order: an object for each event, but a completion that numbers alone can tell is
// a row of `rows`, and a number among the objects stands for so many rows. native/packed.ts reads it.
struct PackedEvents {
    Napi::Array events;
    Napi::Value rows;  // a Float64Array, or null when there are none
    bool empty;
};
PackedEvents to_js(Napi::Env env, const CompletionQueue::Batch& batch);
// Our words for the enumerations, by their numbers: what the rows' numbers mean.
Napi::Object words_to_js(Napi::Env env);

Napi::Object to_js(Napi::Env env, const CallReport& call);
Napi::Object to_js(Napi::Env env, const PoolState& state);
Napi::Object to_js(Napi::Env env, const RecyclePool& pool);
// A number, since_us * 64 + code, where code = phase * 4 + state; of a look-up, and on a machine that has been up for too many
// years for that, an object {code, sinceUs, found}.
Napi::Value to_js(Napi::Env env, const Core::Settled& settled);
Napi::Object to_js(Napi::Env env, const Arena& arena);

}  // namespace kvlane
