// from_js.h — arguments from TypeScript, checked. A wrong one is a bug of the caller: it throws.
#pragma once

#include <napi.h>

#include <memory>

#include "core.h"
#include "engine.h"

namespace kvlane {

// An Error with a stable `code`.
Napi::Error coded_error(Napi::Env env, const char* code, const std::string& message);

// `what` names the value in the error: "submit: deadlineUs".
uint64_t natural(Napi::Value value, const char* what);
std::string text(Napi::Value value, const char* what);
LaneClass lane_class_from_js(Napi::Value value, const char* what);
EngineKind engine_from_js(Napi::Value value, const char* what);
std::shared_ptr<Operation> operation_from_js(Core& core, Napi::Value value, LaneClass lane_class);

}  // namespace kvlane
