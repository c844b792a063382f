// checksum_avx2.cc — XXH3 with AVX2: the one file that the Makefile compiles for more than every processor has, where it can be.
// Debian's libxxhash makes no choice at run time, and an addon built here must run elsewhere.
#include "checksum.h"
#include "checksum_of.h"

namespace kvlane {

#ifdef __AVX2__
static_assert(XXH_VECTOR == XXH_AVX2);
const bool built_for_avx2 = true;
#else
const bool built_for_avx2 = false;
#endif

uint64_t xxh3_avx2(const void* first, size_t first_bytes, const void* second, size_t second_bytes) {
    return checksum_of(first, first_bytes, second, second_bytes);
}

}  // namespace kvlane
