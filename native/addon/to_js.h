// to_js.h — what happened in the core, as the objects that native/index.ts describes.
#pragma once

#include <napi.h>

#include "core.h"

namespace kvlane {

Napi::Object to_js(Napi::Env env, const Event& event);
Napi::Object timer_to_js(Napi::Env env);
Napi::Object to_js(Napi::Env env, const CallReport& call);
Napi::Object to_js(Napi::Env env, const PoolState& state);
Napi::Object to_js(Napi::Env env, const Core::Settled& settled);
Napi::Object to_js(Napi::Env env, const Arena& arena);

}  // namespace kvlane
