#include "checksum.h"

#include "checksum_of.h"

namespace kvlane {

bool has_avx2() {
#ifdef __x86_64__
    static const bool has = built_for_avx2 && __builtin_cpu_supports("avx2") != 0;
    return has;
#else
    return false;
#endif
}

uint64_t xxh3_portable(const void* first, size_t first_bytes, const void* second, size_t second_bytes) {
    return checksum_of(first, first_bytes, second, second_bytes);
}

uint64_t xxh3(const void* first, size_t first_bytes, const void* second, size_t second_bytes) {
    return has_avx2() ? xxh3_avx2(first, first_bytes, second, second_bytes) : xxh3_portable(first, first_bytes, second, second_bytes);
}

uint64_t xxh3(const void* data, size_t bytes) { return xxh3(data, bytes, nullptr, 0); }

}  // namespace kvlane
