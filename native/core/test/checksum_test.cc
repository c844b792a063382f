// checksum_test.cc — one checksum whatever the processor has, since a block may be read on another host than it was written on.
#include "checksum.h"

#include <utility>
#include <vector>

#include "test.h"

using namespace kvlane;

namespace {

std::vector<unsigned char> pattern(size_t bytes) {
    std::vector<unsigned char> data(bytes + 64);
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (unsigned char& byte : data) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        byte = static_cast<unsigned char>(state >> 56);
    }
    return data;
}

// Around every place where XXH3 changes its way: 16, 128 and 240 bytes, its stripes of 64 and its blocks of 1,024.
const size_t lengths[] = {0, 1, 3, 4, 8, 9, 16, 17, 63, 64, 65, 128, 129, 240, 241, 256, 1023, 1024, 1025, 4096, 65'536, 1'000'003};

}  // namespace

// From another build of XXH3 (Python's xxhash): blocks on disks hold such numbers.
TEST("the checksum is XXH3-64 with seed 0") {
    const auto data = pattern(1'000'003);
    const std::pair<size_t, uint64_t> known[] = {{0, 0x2d06800538d394c2},   {3, 0x35c59c63f67c71a2},    {16, 0x0c9057c1b3ef2e34},
                                                 {200, 0xa7e82a3e6af888d1}, {1024, 0xc768e7d19aabf178}, {1'000'003, 0xf1e1736554b2de6d}};
    for (const auto& [bytes, checksum] : known) {
        CHECK_EQUAL(xxh3(data.data(), bytes), checksum);
        CHECK_EQUAL(xxh3_portable(data.data(), bytes, nullptr, 0), checksum);
    }
}

TEST("with AVX2 and without, and wherever the data begins, the checksum is the same") {
    if (!has_avx2() && test::skipped("this processor has no AVX2")) return;
    const auto data = pattern(1'000'003);
    for (size_t bytes : lengths) {
        for (size_t from : {size_t{0}, size_t{1}, size_t{8}, size_t{33}}) {
            CHECK_EQUAL(xxh3_avx2(data.data() + from, bytes, nullptr, 0), xxh3_portable(data.data() + from, bytes, nullptr, 0));
        }
    }
    size_t different = 0;
    for (size_t bytes = 0; bytes <= 4096; bytes++) {
        const size_t cut = bytes * 7 / 11;
        different += xxh3_avx2(data.data(), bytes, nullptr, 0) != xxh3_portable(data.data(), bytes, nullptr, 0);
        different += xxh3_avx2(data.data(), cut, data.data() + cut, bytes - cut) != xxh3_portable(data.data(), bytes, nullptr, 0);
    }
    CHECK_EQUAL(different, size_t{0});
}

TEST("two pieces have the checksum of the whole, wherever it is cut") {
    const auto data = pattern(10'000);
    for (size_t bytes : {size_t{240}, size_t{1025}, size_t{10'000}}) {
        const uint64_t whole = xxh3(data.data(), bytes);
        for (size_t cut : {size_t{0}, size_t{1}, size_t{64}, bytes / 2, bytes - 1, bytes}) {
            CHECK_EQUAL(xxh3(data.data(), cut, data.data() + cut, bytes - cut), whole);
            CHECK_EQUAL(xxh3_portable(data.data(), cut, data.data() + cut, bytes - cut), whole);
        }
    }
}
