// names.cc — the words that people and the protocol use for our enumerations.
#include "engine.h"
#include "operation.h"
#include "watch_word.h"

namespace kvlane {

// No default labels: a new enumerator must get its word here, or the compiler complains.

const char* kind_name(Kind kind) {
    switch (kind) {
        case Kind::load: return "load";
        case Kind::store: return "store";
        case Kind::lookup: return "lookup";
        case Kind::remove: return "remove";
        case Kind::aside: return "aside";
        case Kind::identify: return "identify";
        case Kind::name_space: return "namespace";
        case Kind::tidy: return "tidy";
        case Kind::probe: return "probe";
        case Kind::list: return "list";
        case Kind::verify: return "verify";
        case Kind::remove_file: return "remove_file";
        case Kind::touch: return "touch";
        case Kind::lease: return "lease";
        case Kind::survey: return "survey";
    }
    return "unknown";
}

const char* status_name(Status status) {
    switch (status) {
        case Status::ok: return "ok";
        case Status::not_found: return "not_found";
        case Status::corrupt: return "corrupt";
        case Status::length_mismatch: return "length_mismatch";
        case Status::newer_format: return "newer_format";
        case Status::io_error: return "io_error";
        case Status::no_space: return "no_space";
        case Status::wrong_store: return "wrong_store";
        case Status::expired: return "expired";
        case Status::saturated: return "saturated";
        case Status::fenced: return "fenced";
    }
    return "unknown";
}

const char* lane_class_name(LaneClass lane_class) {
    switch (lane_class) {
        case LaneClass::load: return "load";
        case LaneClass::store: return "store";
        case LaneClass::metadata: return "metadata";
    }
    return "unknown";
}

const char* state_name(State state) {
    switch (state) {
        case State::queued: return "queued";
        case State::running: return "running";
        case State::committing: return "committing";
        case State::done: return "done";
    }
    return "unknown";
}

const char* lease_action_name(LeaseAction action) {
    switch (action) {
        case LeaseAction::look: return "look";
        case LeaseAction::take: return "take";
        case LeaseAction::renew: return "renew";
        case LeaseAction::leave: return "leave";
        case LeaseAction::listen: return "listen";
        case LeaseAction::tell: return "tell";
    }
    return "unknown";
}

const char* phase_name(Phase phase) {
    switch (phase) {
        case Phase::queue: return "queue";
        case Phase::open: return "open";
        case Phase::stat: return "stat";
        case Phase::header: return "header";
        case Phase::read: return "read";
        case Phase::write: return "write";
        case Phase::fsync: return "fsync";
        case Phase::rename: return "rename";
        case Phase::unlink: return "unlink";
        case Phase::close: return "close";
    }
    return "unknown";
}

const char* syscall_name(Syscall call) {
    switch (call) {
        case Syscall::none: return "none";
        case Syscall::openat: return "openat";
        case Syscall::openat2: return "openat2";
        case Syscall::statx: return "statx";
        case Syscall::fstatat: return "fstatat";
        case Syscall::read: return "read";
        case Syscall::preadv: return "preadv";
        case Syscall::pwritev: return "pwritev";
        case Syscall::fsync: return "fsync";
        case Syscall::renameat2: return "renameat2";
        case Syscall::unlinkat: return "unlinkat";
        case Syscall::mkdirat: return "mkdirat";
        case Syscall::close: return "close";
        case Syscall::io_setup: return "io_setup";
        case Syscall::io_submit: return "io_submit";
        case Syscall::io_getevents: return "io_getevents";
        case Syscall::io_destroy: return "io_destroy";
        case Syscall::fcntl: return "fcntl";
        case Syscall::getdents64: return "getdents64";
        case Syscall::linkat: return "linkat";
        case Syscall::fstatfs: return "fstatfs";
        case Syscall::fdatasync: return "fdatasync";
        case Syscall::write: return "write";
        case Syscall::lseek: return "lseek";
        case Syscall::utimensat: return "utimensat";
    }
    return "unknown";
}

const char* engine_name(EngineKind kind) {
    switch (kind) {
        case EngineKind::threads: return "threads";
        case EngineKind::aio: return "aio";
    }
    return "unknown";
}

}  // namespace kvlane
