// checksum.h — XXH3-64 (seed 0), by the widest instructions that this processor has and the build knows.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace kvlane {

uint64_t xxh3(const void* data, size_t bytes);

// Of two pieces as if they were one. Either may be empty.
uint64_t xxh3(const void* first, size_t first_bytes, const void* second, size_t second_bytes);

// Of pieces that are never all there at once.
class Xxh3 {
  public:
    Xxh3();
    ~Xxh3();
    Xxh3(const Xxh3&) = delete;
    Xxh3& operator=(const Xxh3&) = delete;
    void begin();
    void add(const void* data, size_t bytes);
    uint64_t value() const;

  private:
    void* const state_;
};

// The same, compiled for one instruction set each; which of them is asked is checksum.cc's choice.
uint64_t xxh3_portable(const void* first, size_t first_bytes, const void* second, size_t second_bytes);
uint64_t xxh3_avx2(const void* first, size_t first_bytes, const void* second, size_t second_bytes);
extern const bool built_for_avx2;
bool has_avx2();  // the build, the processor and the system

}  // namespace kvlane
