// recycling.h — what one operation does with recycle/: takes a file to overwrite, keeps one that lost its name.
//
// An inode that was one block becomes another, while readers on this host or another may have it open. What
// must hold all the same, and what it rests on:
//
//  1. No wrong bytes. Header and payload of whatever was read are checked, always, and the header names the key: a
//     mixture of two blocks, or the block of another key, is no block. Who looks at no
//     checksum (--test-unchecked, for measuring) may get such a mixture; what it stores is damaged for everybody else.
//  2. No false alarm. A load that meets what does not fit opens the key's name once more (block_load.cc). A file is
//     damaged if it says the same twice, and is set aside only while the name still holds it.
//  3. No late write. Only a file that had a block's name is ever kept, and it gets that name after its last write
//     has returned and it was closed. A temporary, and a recycled file that was written to and not published
//     (failed, expired, abandoned, still stuck), is unlinked by its own lane and never comes back. This is true of a
//     file system that lives in one kernel; a network file system may repeat an old write when it likes, so there
//     nothing is recycled (sidecar/recycling.ts).
//  4. One owner. recycle/<writer>/ is this process's, each name there is used once, a file comes in by an exclusive
//     rename or an exchange, and what a dead process leaves is unlinked, never taken over (block_tidy.cc).
//  5. Nobody else's bytes. Overwritten is only a plain file of our user, with one link, found with the inode, size, mode
//     and group that it was kept with; and those are what a new file in its place would have.
//  6. A key's file is not the key's next version, and a replaced one rests before it is overwritten: a load that opened it
//     has its time.
//  7. Whole, absent or CORRUPT, wherever a power cut falls: a name changes by one rename, after the bytes are
//     written; what an old name may still lead to has its own header, which names the other key.
//  8. No wait for all. A move between directories holds a lock of the whole file system, and waits for the inode
//     of the name that it changes: with a read stuck there it would hold up every other move. So a key that this process is
//     loading just now is stored and removed the old way, within its directory. (A load that begins meanwhile, or another
//     process's, is not seen: the wait is then that of the read, and all of it within lanes.)
//  9. Bounded and counted: files and bytes have limits (RecyclePool::Limits), and a full file system gets them first.
//
// The directory is opened while the operation's root is at hand, and never after a transfer: the root may
// be another by then, and a name would go from one file system to another.
#pragma once

#include <optional>
#include <string>

#include "lane_context.h"
#include "operation.h"
#include "recycle_pool.h"

namespace kvlane {

uint64_t hash_of_key(const Operation& operation);

// For as long as a load may have the block's file open.
class LoadMark {
  public:
    explicit LoadMark(const Operation& operation);
    ~LoadMark();
    LoadMark(const LoadMark&) = delete;
    LoadMark& operator=(const LoadMark&) = delete;

  private:
    RecyclePool* pool_ = nullptr;
    uint64_t origin_ = 0;
};

class Recycling {
  public:
    explicit Recycling(Operation& operation);
    ~Recycling();

    // First thing: recycle/<writer> if files wait there. Where nothing is recycled any more, one of them goes.
    void begin(LaneContext& lane, int root);
    int directory() const { return directory_; }  // -1: not open, or not to be had

    // The one name there that this operation uses: of the file it took, or a new one.
    const std::string& place() const { return place_; }
    void new_place();

    // A file to overwrite, opened for writing, lying at place(), that may become a block in `target`; or a negative errno when
    // there is none to be had. `direct` as wanted, and as it was had.
    int take(LaneContext& lane, int target, uint64_t file_bytes, bool& direct);
    // Is a file that is made in recycle/ like one that is made in `target`?
    bool makes_alike(LaneContext& lane, int target);

    // Before `name` goes to another file, or away: is what it holds now worth keeping, and is there room? Then recycle/ is open.
    // When it lies at place(), keep() takes it into the pool.
    bool see(LaneContext& lane, int root, int directory, const char* name);
    bool seen() const { return seen_.has_value(); }
    void keep(LaneContext& lane, bool replaced);

    // On a full file system: unlinks some. False: there is none left.
    bool make_room(LaneContext& lane);

    // In the end, on every path.
    void leave(LaneContext& lane);

  private:
    void open(LaneContext& lane, int root);
    void go_to(uint64_t number);
    void unlink(LaneContext& lane, uint64_t number);
    std::optional<uint32_t> group_in(LaneContext& lane, int directory);

    Operation& op_;
    RecyclePool& pool_;
    const uint64_t origin_;
    const bool apart_;  // its key is being loaded
    int directory_ = -1;
    uint64_t number_ = 0;  // of place_
    std::string place_;
    std::optional<Recyclable> seen_;  // with a place reserved for it
    std::optional<Recyclable> displaced_;
};

}  // namespace kvlane
