// checksum_of.h — for the files that compile XXH3 for one instruction set; nobody else includes it.
//
// Everything in it is static, and it brings no header of C++ along: an inline function compiled for AVX2 could be the one
// that the linker keeps for everybody, also where there is no AVX2.
#pragma once

// The bytes come from a device, so they are in no cache of this processor, and its own prefetching ends at each 4 KiB. xxhash looks 384
// bytes ahead; of blocks that were just read, 64 KiB and 1 MiB, five times as far takes 11 to 13 % less time, and of hot ones no more.
#define XXH_PREFETCH_DIST 2048
#define XXH_INLINE_ALL
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

static inline uint64_t checksum_of(const void* first, size_t first_bytes, const void* second, size_t second_bytes) {
    if (second_bytes == 0) return XXH3_64bits(first, first_bytes);
    if (first_bytes == 0) return XXH3_64bits(second, second_bytes);
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, first, first_bytes);
    XXH3_64bits_update(&state, second, second_bytes);
    return XXH3_64bits_digest(&state);
}
