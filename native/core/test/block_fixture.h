// block_fixture.h — a store in a temporary directory, and one lane to work on it.
//
// The directory lies on a disk file system (KVLANE_TEST_DIR, else /var/tmp), because a tmpfs may not
// take O_DIRECT.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../block_work.h"
#include "../header.h"
#include "../lane_context.h"
#include "../mount.h"
#include "../operation.h"
#include "fake_file_system.h"

namespace kvlane {

// Page-aligned memory with a guard page on both sides; reading or writing one byte outside is a crash.
class Memory {
  public:
    explicit Memory(uint64_t bytes);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    std::byte* data() const { return data_; }
    uint64_t bytes() const { return bytes_; }
    void fill_pattern(uint64_t seed);
    void fill(uint8_t value);
    bool equals(const Memory& other) const;
    bool untouched(uint8_t value) const;  // the rest of the last page, behind `bytes`
    void mark_rest(uint8_t value);

  private:
    uint64_t bytes_;
    uint64_t mapped_;
    std::byte* base_;
    std::byte* data_;
};

class TestStore {
  public:
    explicit TestStore(bool create = true);
    ~TestStore();

    // What the operations of these kinds need; the rest is set by the test.
    std::shared_ptr<Operation> operation(Kind kind, LaneClass lane_class = LaneClass::load);
    std::shared_ptr<Operation> load(const std::string& hex, const Memory& to);
    std::shared_ptr<Operation> store(const std::string& hex, const Memory& from, bool replace = false);
    std::shared_ptr<Operation> lookup(const std::vector<std::string>& names);
    std::shared_ptr<Operation> remove(const std::string& hex);
    std::shared_ptr<Operation> aside(const std::string& hex, uint64_t inode);

    // start and resume to the end, as the `threads` engine does it.
    Result run(const std::shared_ptr<Operation>& operation);
    Result run(const std::shared_ptr<Operation>& operation, LaneContext& lane);

    std::string path(const std::string& hex) const;    // of a block
    std::vector<std::string> tree() const;              // every name below the root, sorted
    std::vector<std::string> leftovers() const;         // temporaries among them
    static std::string contents(const std::string& file);
    static void write_file(const std::string& file, const std::string& contents);
    static uint64_t inode(const std::string& file);
    static void set_modified(const std::string& file, int64_t unix_s);
    static size_t open_descriptors();

    std::string root;
    std::shared_ptr<Mount> mount;
    FakeFileSystem files;
    ManualClock clock;
    WatchWord word;
    std::unique_ptr<LaneContext> lane;
    std::string name_space = "llama@3";
    uint32_t generation = 1;
};

std::string temporary_directory();
void remove_tree(const std::string& directory);

}  // namespace kvlane
