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

// Blocks of one task, as native/packed.ts lays them out: what they share as an object, the rest as one
// string and one row of numbers each. A handle for every name and number would cost more than all else.
class PackedBlocks {
  public:
    PackedBlocks(Core& core, Napi::Value shared, Napi::Value hexes, Napi::Value rows, LaneClass lane_class);
    size_t left() const { return count_ - next_; }
    // The next ones, at most so many.
    Operations take(size_t most);

  private:
    std::shared_ptr<Operation> next_block();
    uint64_t number(size_t row, size_t column, const char* what) const;

    Napi::Env env_;
    Core& core_;
    LaneClass lane_class_;
    Kind kind_;
    uint32_t root_generation_;
    uint64_t deadline_us_;
    std::shared_ptr<Mount> mount_;
    std::string name_space_;
    bool durable_ = false;
    uint32_t file_mode_ = 0;
    std::string hexes_;
    size_t hex_from_ = 0;
    const double* rows_;
    size_t count_;
    std::shared_ptr<std::atomic<size_t>> unfinished_;
    size_t next_ = 0;
};

}  // namespace kvlane
