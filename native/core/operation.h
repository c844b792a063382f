// operation.h — one thing to do on a mount, and how it ended.
//
// An operation outlives the task that asked for it: when its deadline passes, the task is answered
// and the operation stays with its lane until the kernel gives it back. So it is shared-owned, and
// nothing in it is freed while a lane may still touch it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

namespace kvlane {

// Queues, lanes and breakers are per device and class, so that stuck stores never delay loads.
enum class LaneClass : uint8_t { load, store, metadata };

enum class Kind : uint8_t {
    load,      // block file → memory, verified
    store,     // memory → block file, visible only when whole
    lookup,    // which of many names exist
    remove,    // unlink one block; if asked, only the very file that was seen, and only while a lease lasts
    aside,     // move a damaged block file out of the way, if the name still holds the inode that was read
    identify,  // open the root afresh, read kvlane.json; with `create`, make the store first
    name_space,  // read, create or bump a namespace record
    tidy,      // unlink what other writers left in recycle/ long ago
    probe,     // repeat what tripped the breaker, on the root opened afresh
    list,      // what lies in one directory of the store
    verify,    // read one block whole and check it; changes nothing
    remove_file,  // unlink one leftover that is no block, only the very file that was seen
    touch,     // blocks that are in use get a new time of modification
    lease,     // look at, take, renew or leave collector/: who may remove blocks for room, and who wants some
    survey,    // one step of a look at a file system that need not hold a store
};

// Where an operation is. The names are those of the protocol.
enum class Phase : uint8_t { queue, open, stat, header, read, write, fsync, rename, unlink, close };

enum class Status : uint8_t {
    ok,
    not_found,
    corrupt,          // wrong magic, checksum, key or shape; see Result::aside_inode
    length_mismatch,  // a valid block of another length
    newer_format,     // a valid block written by a later version; a miss
    io_error,
    no_space,
    wrong_store,  // the root is not the store that was identified: unmounted, remounted, another store
    expired,      // the deadline passed while queued or between two calls; no call was started after it
    saturated,    // no thread could be made for it (errno)
    fenced,       // another holds the lease, and nothing was changed
};

// Of a lease.
enum class LeaseAction : uint8_t { look, take, renew, leave, listen, tell };

// Life of an operation. Exactly one lane moves it from queued to done; anyone may abandon it once.
//   queued ─► running ─► done
//   running ─► committing ─► done       the name-changing call (rename, unlink) is about to be issued
// `abandoned` is a flag beside it: set on queued, the operation is dropped; set on running, the lane
// starts no further call except to clean up under its own temporary name; set on committing, the
// name may change late. State and flag share one byte, so that "abandoned" and "the rename goes out"
// can never both win: every step is one compare-and-swap of it.
enum class State : uint8_t { queued, running, committing, done };
inline constexpr uint8_t state_mask = 0x0f;
inline constexpr uint8_t abandoned_bit = 0x80;

struct Result {
    Status status = Status::ok;
    int error = 0;                // errno, 0 where the kernel gave none
    Phase phase = Phase::queue;   // where it ended
    uint64_t kernel_us = 0;       // time spent inside system calls
    bool kernel_us_known = true;  // false: at most that; much of it its lane may have been away (aio)
    bool uncached = false;        // a call was made that no cache could have answered: evidence of health
    bool kept = false;            // store: the block was there already and was left alone; remove, remove_file: another file is there now
    uint64_t stored_bytes = 0;    // length_mismatch, verify: payload bytes of the block that is there
    uint64_t aside_inode = 0;     // corrupt: the inode to set aside; 0 when the file must not be touched
    uint64_t aside_modified_ns = 0;  // and when it was last written: file systems use the numbers of removed files again
    std::string text;             // identify, name_space, touch, lease, survey: JSON; list: lines; otherwise a detail for people, may be empty
};

class Lane;   // lane.h
struct Seat;
struct Mount;  // mount.h: root path and expected identity

struct Operation {
    // What was asked; constant once submitted.
    uint64_t id = 0;
    Kind kind = Kind::load;
    LaneClass lane_class = LaneClass::load;
    std::shared_ptr<Mount> mount;
    uint32_t root_generation = 0;  // a lane whose root was opened under a smaller one opens it again and verifies
    uint64_t deadline_us = 0;      // CLOCK_MONOTONIC; no call is started past it. 0: none (probes, aside)
    std::string name_space;        // load, store, lookup, remove, aside, verify, touch, name_space; may carry "@generation"
    std::string hex;               // load, store, remove, aside, verify; survey: which directory of its own
    std::string path;              // list, remove_file: below the root
    std::vector<std::string> names;  // lookup, touch: hex parts, all in name_space
    std::byte* memory = nullptr;   // load: to; store: from. 4 KiB aligned, inside the arena or the staging area
    uint64_t bytes = 0;            // payload length
    uint64_t inode = 0;            // aside, remove, remove_file; 0: not compared
    uint64_t modified_ns = 0;      // aside, remove; 0: not compared
    uint64_t changed_ns = 0;       // remove_file; 0: not compared
    uint64_t older_us = 0;         // tidy: what was changed since stays; touch: what was modified since stays
    uint64_t fence = 0;            // remove, remove_file: the lease that must not have been taken yet; 0: none
    uint64_t number = 0;           // lease: which; list: the cookie to go on from
    uint32_t entries_max = 0;      // list
    LeaseAction lease = LeaseAction::look;
    bool replace = false;          // store: overwrite a block that exists
    bool recycles = false;         // remove of a file that is named by its inode: it may be kept, to be overwritten
    bool durable = false;          // store: fsync file and directory before and after the rename
    bool create = false;           // identify: make the store when the directory has none
    bool bump = false;             // name_space: start a new generation
    uint32_t file_mode = 0600;     // store; directories get the matching x bits
    std::string text;              // name_space: fingerprint JSON, compact, keys sorted by the caller; lease: its content, or which sign; survey: the step
    std::shared_ptr<std::atomic<size_t>> unfinished;  // of its task's operations; none: it is the only one

    // Life; written by the lane and by abandon().
    std::atomic<uint8_t> state{static_cast<uint8_t>(State::queued)};
    std::atomic<bool> awaited{false};  // somebody beside its task waits for it: its completion must not linger
    std::vector<std::atomic<uint8_t>> found;  // lookup: 0 not known, 1 absent, 2 present; sized names.size()

    // Result; written by the lane before it queues the completion, read after.
    Result result;

    // Where it is; guarded by its pool's mutex.
    std::list<std::shared_ptr<Operation>>::iterator queue_position;  // while queued
    Lane* lane = nullptr;                                            // while running
    Seat* seat = nullptr;

    State state_now() const { return static_cast<State>(state.load(std::memory_order_acquire) & state_mask); }
    bool abandoned() const { return (state.load(std::memory_order_acquire) & abandoned_bit) != 0; }
    bool past_deadline(uint64_t now_us) const { return deadline_us != 0 && now_us >= deadline_us; }

    // To ask before every call that is not clean-up.
    bool may_start_call(uint64_t now_us) const { return !abandoned() && !past_deadline(now_us); }

    // queued → running, by the lane that took it. False: it was dropped, and nobody will hear of it.
    bool begin_running() { return step(State::queued, State::running); }

    // running → committing, right before the rename or unlink. False: it was abandoned, and the name
    // must stay as it is. Asking again while committing is harmless (remove tries unlink twice).
    bool begin_commit() { return step(State::running, State::committing) || state_now() == State::committing; }

    // → done, by the lane, as its last touch but for the completion. True: it was abandoned (late).
    bool finish() {
        const uint8_t before = state.fetch_or(static_cast<uint8_t>(State::done), std::memory_order_acq_rel);
        static_assert((static_cast<uint8_t>(State::done) & static_cast<uint8_t>(State::committing)) == static_cast<uint8_t>(State::committing));
        return (before & abandoned_bit) != 0;
    }

    // By whoever settled the caller's claim; says where the operation was. Done keeps no flag: its
    // completion is on the way and is an ordinary one.
    State abandon() {
        uint8_t now = state.load(std::memory_order_acquire);
        while (static_cast<State>(now & state_mask) != State::done &&
               !state.compare_exchange_weak(now, now | abandoned_bit, std::memory_order_acq_rel, std::memory_order_acquire)) {
        }
        return static_cast<State>(now & state_mask);
    }

    // Counts it off, once. True: nobody waits for another of its task. Of one that was abandoned nobody cares.
    bool last_of_its_task() { return !unfinished || unfinished->fetch_sub(1, std::memory_order_relaxed) == 1; }

    // By whoever wants it back only while it is queued. False: a lane has it, and the claim stands.
    bool withdraw() {
        uint8_t expected = static_cast<uint8_t>(State::queued);
        return state.compare_exchange_strong(expected, static_cast<uint8_t>(expected | abandoned_bit), std::memory_order_acq_rel, std::memory_order_acquire);
    }

  private:
    bool step(State from, State to) {
        uint8_t expected = static_cast<uint8_t>(from);  // without the flag: an abandoned one does not go on
        return state.compare_exchange_strong(expected, static_cast<uint8_t>(to), std::memory_order_acq_rel, std::memory_order_acquire);
    }
};

// In the order in which lanes are to take them up.
using Operations = std::list<std::shared_ptr<Operation>>;

const char* kind_name(Kind kind);
const char* status_name(Status status);
const char* lane_class_name(LaneClass lane_class);
const char* state_name(State state);
const char* lease_action_name(LeaseAction action);

}  // namespace kvlane
