// event.h — what the threads of the core tell the one JavaScript thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "operation.h"
#include "watch_word.h"

namespace kvlane {

// One call that is in the kernel for too long, or was given up by its caller; for `stuck`, `stalled`
// and `recovered`. The names are looked up when somebody wants to read it.
struct CallReport {
    std::shared_ptr<Operation> operation;  // null: a lane that closes its roots before it leaves
    unsigned pool = 0;
    pid_t tid = 0;
    Phase phase = Phase::queue;
    Syscall call = Syscall::none;
    uint64_t since_us = 0;
    uint64_t for_us = 0;
    bool abandoned = false;
};

struct Event {
    enum class Type : uint8_t { done, stalled, recovered, parent_gone, notice };
    Type type = Type::done;
    std::shared_ptr<Operation> operation = nullptr;  // done
    bool late = false;                               // done: it had been abandoned
    CallReport call = {};                            // stalled, recovered
    std::string text = {};                           // notice
};

}  // namespace kvlane
