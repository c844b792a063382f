// recycle_pool.h — the files of removed and replaced blocks of one mount, which later stores overwrite.
//
// Making a file is what a store costs: blocks to find, a journal to write, and the old file's blocks to
// give back. A file that was a block and lost its name needs none of that. It lies in recycle/<writer>/,
// where an exclusive rename has put it, so that nobody else can take it; this is the list of them.
//
// Who takes one out owns it, alone, until it is a block again or unlinked: nothing comes back here but
// by being published and taken away once more. So no file that a stuck call may still write to is ever
// in here. Names and numbers only; no call is made under the mutex.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>

namespace kvlane {

struct Recyclable {
    uint64_t number = 0;      // its name in recycle/<writer>/, never used twice
    uint64_t file_bytes = 0;
    uint64_t inode = 0;       // what must be found under the name
    uint32_t mode = 0;        // permission bits
    uint32_t group = 0;
    uint64_t origin = 0;      // a hash of the key that it held: it does not become that key's next version
    uint64_t rested_us = 0;   // not to be overwritten before

    // Either would do for the same store.
    bool like(const Recyclable& other) const { return file_bytes == other.file_bytes && mode == other.mode && group == other.group; }
};

class RecyclePool {
  public:
    // `rest_us`: for how long a replaced file is left alone. Its key is still there, and a load that opened the old
    // file must find it whole, or look twice. A removed key's loads may find nothing: no rest.
    struct Limits {
        uint64_t files = 0;  // 0: nothing is recycled
        uint64_t bytes = 0;
        uint64_t rest_us = 0;
        uint32_t file_mode = 0600;  // of the store: recycle/ is for the same users as the blocks
    };
    struct Figures {
        uint64_t files = 0, bytes = 0;  // now
        uint64_t recycled = 0;          // blocks stored over a recycled file
        uint64_t kept = 0;              // files that came in
        uint64_t dropped = 0;           // unlinked: no room, or another size was wanted
        uint64_t lost = 0;              // not there, or changed, when they were to be overwritten
    };

    void set_limits(Limits limits);
    void turn_off() { on_.store(false, std::memory_order_relaxed); }  // the file system has no use for it
    bool on() const { return on_.load(std::memory_order_relaxed); }
    Limits limits() const;

    // The oldest that is just like what is to be stored now (size, mode, group), has rested, and never held `wanted.origin`.
    std::optional<Recyclable> take(const Recyclable& wanted, uint64_t now_us);
    std::optional<Recyclable> take_oldest();  // to unlink it, for the room
    bool any() const;

    // A place for a file that is about to lose its name. `displaced` gave way and is to be unlinked, granted or not:
    // a pool full of what nobody stores any more (another size, another group) must not stay so.
    struct Room {
        bool granted = false;
        std::optional<Recyclable> displaced;
    };
    Room reserve(const Recyclable& file);
    void put(const Recyclable& file);     // into a reserved place
    void give_back(uint64_t file_bytes);  // a reserved place that was not used
    void put_back(const Recyclable& file);  // taken, and nothing was done to it

    // One row of numbers for the whole process: two mounts may be the same directory.
    static uint64_t next_number() { return ++numbers; }
    void count_recycled() { ++recycled_; }
    void count_lost() { ++lost_; }
    void count_dropped() { ++dropped_; }
    Figures figures() const;

    // Keys that are being loaded, by origin: such a block's file stays where it is. Counted in so many places, without the mutex, which
    // every load would take twice; so another key in the same place is taken for one of them, and its file stays as well.
    static constexpr size_t loading_places = 2048;  // two pages; many more than loads under way, but for a mount that hangs
    void load_begins(uint64_t origin) { loading_[origin % loading_places].fetch_add(1); }
    void load_ends(uint64_t origin) { loading_[origin % loading_places].fetch_sub(1); }
    bool loading(uint64_t origin) const { return loading_[origin % loading_places].load() != 0; }

    // RENAME_EXCHANGE, without which a replaced file cannot be had.
    bool exchanges() const { return exchanges_.load(std::memory_order_relaxed); }
    void no_exchange() { exchanges_.store(false, std::memory_order_relaxed); }

  private:
    bool fits(uint64_t file_bytes) const { return files_ + 1 <= limits_.files && bytes_ + file_bytes <= limits_.bytes; }

    std::atomic<bool> on_{false};
    std::atomic<bool> exchanges_{true};
    inline static std::atomic<uint64_t> numbers{0};
    std::atomic<uint64_t> recycled_{0}, kept_{0}, dropped_{0}, lost_{0};
    mutable std::mutex mutex_;  // never held during a system call
    Limits limits_;
    std::deque<Recyclable> files_in_;  // oldest first
    uint64_t files_ = 0;               // with reserved places
    uint64_t bytes_ = 0;
    std::array<std::atomic<uint32_t>, loading_places> loading_{};
};

}  // namespace kvlane
