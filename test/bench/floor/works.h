// What is done to one block: the plain calls, open to close, as little as can be.
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <random>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "options.h"

constexpr unsigned long kPage = 4096;
constexpr unsigned long kHuge = 2UL << 20;

class Works {
 public:
  explicit Works(const Options& o) : o_(o), slots_(o.block_bytes ? o.arena_bytes / o.block_bytes : 1) {
    root_ = open(o.dir.c_str(), O_PATH | O_DIRECTORY);
    if (root_ < 0) fail("open " + o.dir);
    if (o.spread)
      for (int i = 0; i < 256; ++i) {
        char name[8];
        std::snprintf(name, sizeof name, "%02x", i);
        if (mkdirat(root_, name, 0700) != 0 && errno != EEXIST) fail("mkdir");
      }
    if (!o.block_bytes) return;
    arena_ = map(o.arena_bytes, o.huge);
    heads_ = map(o.threads * kPage, false);
    std::mt19937_64 random(1);  // a device that compresses or finds zeros would flatter the stores
    for (unsigned long i = 0; i < o.arena_bytes / 8; ++i) reinterpret_cast<unsigned long*>(arena_)[i] = random();
  }

  void load(unsigned thread, unsigned long block, unsigned long slot) {
    char path[32];
    const int fd = openat(root_, name(path, block), O_RDONLY | O_DIRECT | O_NOATIME | O_CLOEXEC);
    if (fd < 0) fail(std::string("open ") + path);
    const bool whole = move(fd, false, thread, slot);
    close(fd);
    if (!whole) fail(std::string("read ") + path);
    if (o_.xxh3 && XXH3_64bits(at(slot), o_.block_bytes) != *digest(thread)) errno = EBADMSG, fail(path);
  }

  void overwrite(unsigned thread, unsigned long block, unsigned long slot) {
    char path[32];
    write_to(name(path, block), 0, thread, slot);
  }

  void make(unsigned thread, unsigned long block, unsigned long slot) {
    char path[32], temporary[40];
    name(path, block);
    std::snprintf(temporary, sizeof temporary, "%s.tmp", path);
    write_to(temporary, O_CREAT | O_EXCL, thread, slot);
    if (renameat(root_, temporary, root_, path) != 0) fail(std::string("rename to ") + path);
  }

  // The file of block k becomes that of block k + count: the set moves on, and nothing is made or removed.
  void recycle(unsigned thread, unsigned long block, unsigned long slot) {
    char old[32], path[32], temporary[40];
    name(old, block), name(path, block + o_.count);
    std::snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (renameat(root_, old, root_, temporary) != 0) fail(std::string("rename ") + old);
    write_to(temporary, 0, thread, slot);
    if (renameat(root_, temporary, root_, path) != 0) fail(std::string("rename to ") + path);
  }

  void look(unsigned long block) {  // every other name is absent
    char path[32];
    name(path, block / 2 + (block % 2 ? o_.count : 0));
    if ((faccessat(root_, path, F_OK, 0) == 0) != (block % 2 == 0)) fail(std::string("lookup ") + path);
  }

  void touch(unsigned long block) {  // an empty file: all a look-up needs
    char path[32];
    const int fd = openat(root_, name(path, block), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) fail(std::string("make ") + path);
    close(fd);
  }

  void remove(unsigned long block) {
    char path[32];
    if (unlinkat(root_, name(path, block), 0) != 0 && errno != ENOENT) fail(std::string("unlink ") + path);
  }

  unsigned long slots() const { return slots_; }

 private:
  static char* map(unsigned long bytes, bool huge) {
    if (huge) bytes = (bytes + kHuge - 1) / kHuge * kHuge;
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | (huge ? MAP_HUGETLB : 0), -1, 0);
    if (p == MAP_FAILED) fail(huge ? "mmap of huge pages" : "mmap");
    if (!huge) madvise(p, bytes, MADV_NOHUGEPAGE);
    return static_cast<char*>(p);
  }

  const char* name(char (&path)[32], unsigned long block) const {
    if (o_.spread) std::snprintf(path, sizeof path, "%02lx/f.%lu", block % 256, block);
    else std::snprintf(path, sizeof path, "f.%lu", block);
    return path;
  }

  char* at(unsigned long slot) const { return arena_ + slot % slots_ * o_.block_bytes; }
  unsigned long* digest(unsigned thread) const { return reinterpret_cast<unsigned long*>(heads_ + thread * kPage); }

  bool move(int fd, bool out, unsigned thread, unsigned long slot) const {
    const iovec parts[2] = {{heads_ + thread * kPage, kPage}, {at(slot), o_.block_bytes}};
    const iovec* from = o_.header ? parts : parts + 1;
    const int n = o_.header ? 2 : 1;
    const ssize_t want = static_cast<ssize_t>(o_.block_bytes + (o_.header ? kPage : 0));
    return (out ? pwritev(fd, from, n, 0) : preadv(fd, from, n, 0)) == want;
  }

  void write_to(const char* path, int flags, unsigned thread, unsigned long slot) const {
    if (o_.xxh3) *digest(thread) = XXH3_64bits(at(slot), o_.block_bytes);
    const int fd = openat(root_, path, O_WRONLY | O_DIRECT | O_CLOEXEC | flags, 0600);
    if (fd < 0) fail(std::string("open ") + path);
    if (!move(fd, true, thread, slot)) fail(std::string("write ") + path);
    close(fd);
  }

  const Options o_;
  unsigned long slots_;
  int root_;
  char *arena_ = nullptr, *heads_ = nullptr;
};
