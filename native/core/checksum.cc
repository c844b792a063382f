#include "checksum.h"

#include "checksum_of.h"

#include <new>

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

namespace {
XXH3_state_t* made_state() {
    XXH3_state_t* const state = XXH3_createState();
    if (state == nullptr) throw std::bad_alloc();
    return state;
}
}  // namespace

Xxh3::Xxh3() : state_(made_state()) { begin(); }
Xxh3::~Xxh3() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }
void Xxh3::begin() { XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_)); }
void Xxh3::add(const void* data, size_t bytes) { XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), data, bytes); }
uint64_t Xxh3::value() const { return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state_)); }

uint64_t xxh3(const void* data, size_t bytes) { return xxh3(data, bytes, nullptr, 0); }

}  // namespace kvlane
