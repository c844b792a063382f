// block_fuzz.cc — libFuzzer against what judges a block: the header's judge, and the whole load over a file system in memory.
//
// An input is one block file in short: the header's fields, the payload, and how the file differs from what they say. The
// 3,816 reserved bytes are zeros but for one, and the checksums are made good when the input says so: no fuzzer would
// guess them, and behind them is where the code is. Beside the product stands a judge of our own, written from the format alone.
//
//     mode      1: the header's checksum is made to fit   2: the payload's too   4: one reserved byte is set   8: the expected
//               length is the header's   16: a whole header is written by write_header, then changed at one place   32: a read moves
//               at most 64 + place bytes: nothing comes out differently
//     place     u16: which reserved byte, or which place of the header is changed
//     shape     u16: what the file has more or less than header + payload + padding
//     asked     u16: the length that the load asks for
//     header    its first 272 bytes; what follows is payload
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../core/block_steps.h"
#include "../core/header.h"
#include "../core/mount.h"
#include "../core/paths.h"

namespace kvlane {

// What make_block_work can make besides, and nobody makes here.
std::unique_ptr<BlockWork> make_store(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_lookup(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_remove(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_aside(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_identify(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_name_space(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_tidy(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_probe(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_list(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_verify(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_remove_file(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_touch(std::shared_ptr<Operation>) { std::abort(); }
std::unique_ptr<BlockWork> make_lease(std::shared_ptr<Operation>) { std::abort(); }

namespace {

constexpr char store_id[] = "00000000000000000000000000000001";
constexpr char identity[] = "{\"format\":1,\"store_id\":\"00000000000000000000000000000001\",\"created\":\"2026-01-01T00:00:00Z\"}\n";
constexpr char asked_name_space[] = "llama@3";
constexpr char asked_hex[] = "c0ffee";
constexpr size_t header_used = 272;
constexpr uint64_t payload_bytes_max = 64 << 10;

[[noreturn]] void wrong(const char* what) {
    std::fprintf(stderr, "FUZZ: %s\n", what);
    std::abort();
}

// One root, one identity, one block.
class OneBlock final : public FileSystem {
  public:
    std::vector<std::byte> file;
    int open_descriptors = 0;
    uint64_t read_bytes_max = UINT64_MAX;

    int open_root(const char*) override { return ++open_descriptors, 10; }
    int open_beneath(int, const char* name, int, uint32_t, Lookup) override {
        ++open_descriptors;
        if (std::strcmp(name, identity_name) == 0) return 11;
        if (std::string_view(name).ends_with(".kvb")) return 12;
        --open_descriptors;
        return -ENOENT;
    }
    int stat(int fd, Freshness, FileStat& out) override {
        out.mode = S_IFREG | 0600;
        out.size = content(fd).second;
        out.inode = 7;
        out.links = 1;
        out.direct_align = 512;
        return 0;
    }
    int64_t preadv(int fd, const iovec* parts, int count, int64_t offset) override {
        const auto [from, bytes] = content(fd);
        auto at = static_cast<uint64_t>(offset);
        const uint64_t end = fd == 12 && read_bytes_max < bytes ? std::min<uint64_t>(bytes, at + read_bytes_max) : bytes;
        int64_t moved = 0;
        for (int i = 0; i < count && at < end; i++) {
            const uint64_t n = std::min<uint64_t>(parts[i].iov_len, end - at);
            std::memcpy(parts[i].iov_base, from + at, n);
            at += n;
            moved += static_cast<int64_t>(n);
        }
        return moved;
    }
    int close(int) override { return --open_descriptors, 0; }
    int drop_direct(int) override { return 0; }
    int fs_type(int, uint64_t&) override { return -ENOSYS; }
    int64_t pwritev(int, const iovec*, int, int64_t) override { wrong("a load writes"); }
    int fsync(int) override { wrong("a load forces something out"); }
    int rename(int, const char*, int, const char*, uint32_t) override { wrong("a load changes a name"); }
    int link(int, const char*, int, const char*) override { wrong("a load makes a link"); }
    int unlink(int, const char*) override { wrong("a load unlinks"); }
    int make_directory(int, const char*, uint32_t) override { wrong("a load makes a directory"); }
    int remove_directory(int, const char*) override { wrong("a load removes a directory"); }
    int64_t entries(int, void*, size_t) override { wrong("a load lists a directory"); }
    int64_t seek(int, uint64_t) override { wrong("a load goes through a directory"); }
    int stat_name(int, const char*, FileStat&) override { wrong("a load looks at a name"); }
    int touch(int) override { wrong("a load changes a time"); }

  private:
    std::pair<const std::byte*, uint64_t> content(int fd) const {
        if (fd == 11) return {reinterpret_cast<const std::byte*>(identity), sizeof identity - 1};
        return {file.data(), file.size()};
    }
};

// The format, once more, by its offsets.
template <typename T>
T at(const std::byte* page, size_t offset) {
    T value;
    std::memcpy(&value, page + offset, sizeof value);
    return value;
}
Status reference(const std::vector<std::byte>& file, uint64_t asked) {
    const std::byte* page = file.data();
    const size_t got = std::min<size_t>(file.size(), 4096);
    if (std::all_of(page, page + got, [](std::byte b) { return b == std::byte{0}; })) return Status::corrupt;
    if (got < 8 || std::memcmp(page, "\x89KVLANE\n", 8) != 0 || got < 4096) return Status::corrupt;
    const bool fits = at<uint64_t>(page, 4088) == xxh3_portable(page, 4088, nullptr, 0);
    if (at<uint32_t>(page, 8) > 1) {
        std::vector<std::byte> ours(page, page + 4096);
        const uint32_t one = 1;
        std::memcpy(ours.data() + 8, &one, 4);
        return at<uint64_t>(page, 4088) == xxh3_portable(ours.data(), 4088, nullptr, 0) ? Status::corrupt : Status::newer_format;
    }
    const uint64_t payload = at<uint64_t>(page, 16);
    const auto names = [&](size_t length_at, size_t text_at, size_t room, std::string_view wanted) {
        const uint32_t length = at<uint32_t>(page, length_at);
        return length <= room && std::string_view(reinterpret_cast<const char*>(page) + text_at, length) == wanted;
    };
    if (!fits || at<uint32_t>(page, 8) != 1 || at<uint32_t>(page, 12) != 4096) return Status::corrupt;
    if (!names(56, 64, 80, asked_name_space) || !names(60, 144, 128, asked_hex)) return Status::corrupt;
    if (payload > file.size() || file.size() != 4096 + (payload + 4095) / 4096 * 4096) return Status::corrupt;
    if (payload != asked) return Status::length_mismatch;
    return at<uint64_t>(page, 24) == xxh3_portable(page + 4096, payload, nullptr, 0) ? Status::ok : Status::corrupt;
}

struct Reader {
    const uint8_t* data;
    size_t left;
    uint64_t number(size_t bytes) {
        uint64_t value = 0;
        for (size_t i = 0; i < bytes && left > 0; i++, data++, left--) value |= uint64_t{*data} << 8 * i;
        return value;
    }
};

void judge_alone(const std::vector<std::byte>& file) {
    // Exactly what was read, so that one byte more is seen.
    const size_t got = std::min<size_t>(file.size(), header_bytes);
    auto page = std::make_unique<HeaderPage>();
    std::memset(static_cast<void*>(page.get()), 0xab, sizeof *page);
    std::memcpy(static_cast<void*>(page.get()), file.data(), got);
    const HeaderVerdict verdict = judge_header(*page, got);
    if (verdict != HeaderVerdict::valid) return;
    const std::string_view name_space(page->name_space, page->name_space_bytes), hex(page->hex, page->hex_bytes);
    if (!header_names(*page, name_space, hex)) wrong("a header does not know its own names");
    if (header_names(*page, std::string(name_space) + "x", hex) || header_names(*page, name_space, std::string(hex) + "0")) wrong("a header has another's names");
    // Written again from its own fields it is judged the same, and says the same.
    auto again = std::make_unique<HeaderPage>();
    write_header(*again, {.name_space = name_space, .hex = hex, .payload_bytes = page->payload_bytes, .payload_xxh3 = page->payload_xxh3,
                          .created_unix_us = page->created_unix_us, .writer = {page->writer, sizeof page->writer}});
    if (judge_header(*again, header_bytes) != HeaderVerdict::valid || !header_names(*again, name_space, hex)) wrong("a header that was written is not valid");
    if (again->payload_bytes != page->payload_bytes || again->payload_xxh3 != page->payload_xxh3) wrong("a header that was written says something else");
}

void load(OneBlock& files, uint64_t asked) {
    static const auto mount = [] {
        auto made = std::make_shared<Mount>("/store");
        made->set_store_id(store_id);
        return made;
    }();
    ManualClock clock;
    WatchWord word;
    LaneContext lane(files, word, clock);
    // The sanitizer watches its edges.
    auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, (asked + 4095) / 4096 * 4096 + 4096));
    auto operation = std::make_shared<Operation>();
    operation->mount = mount;
    operation->name_space = asked_name_space;
    operation->hex = asked_hex;
    operation->memory = memory;
    operation->bytes = asked;
    operation->begin_running();
    const uint64_t behind = (asked + 4095) / 4096 * 4096 + 4096 - asked;
    std::memset(memory + asked, 0x5c, behind);
    {
        auto work = make_block_work(operation);
        auto next = work->start(lane);
        while (next) next = work->resume(lane, lane.transfer(*operation, *next));
    }
    const Result& result = operation->result;
    const Status wanted = reference(files.file, asked);
    if (result.status != wanted) {
        std::fprintf(stderr, "FUZZ: %s (%s), by the format it is %s\n", status_name(result.status), result.text.c_str(), status_name(wanted));
        std::abort();
    }
    if (result.status == Status::ok && std::memcmp(memory, files.file.data() + 4096, asked) != 0) wrong("ok, and other bytes");
    if (result.status == Status::corrupt && result.text.empty()) wrong("corrupt without a reason");
    if (result.aside_inode != 0 && result.status != Status::corrupt) wrong("a block that is not damaged is offered to be set aside");
    if (std::any_of(memory + asked, memory + asked + behind, [](std::byte b) { return b != std::byte{0x5c}; })) wrong("bytes behind the payload were written");
    std::free(memory);
    lane.close_roots();
    if (files.open_descriptors != 0) wrong("a descriptor is left open");
}

}  // namespace
}  // namespace kvlane

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kvlane;
    Reader in{data, size};
    const uint64_t mode = in.number(1), place = in.number(2), shape = in.number(2), asked_given = in.number(2);
    auto page = std::make_unique<HeaderPage>();
    std::memset(static_cast<void*>(page.get()), 0, sizeof *page);
    auto* raw = reinterpret_cast<uint8_t*>(page.get());
    const size_t given = std::min(in.left, header_used);
    std::memcpy(raw, in.data, given);
    in.data += given;
    in.left -= given;
    const uint64_t payload_bytes = std::min<uint64_t>(in.left, payload_bytes_max);
    if ((mode & 16) != 0) {
        HeaderPage fields = *page;
        const auto text = [](const char* from, uint32_t length, size_t room) { return std::string_view(from, std::min<size_t>(length, room)); };
        write_header(*page, {.name_space = text(fields.name_space, fields.name_space_bytes, sizeof fields.name_space), .hex = text(fields.hex, fields.hex_bytes, sizeof fields.hex),
                             .payload_bytes = payload_bytes, .payload_xxh3 = xxh3(in.data, payload_bytes), .created_unix_us = fields.created_unix_us, .writer = {fields.writer, sizeof fields.writer}});
        if (judge_header(*page, header_bytes) != HeaderVerdict::valid) wrong("what write_header writes is not valid");
        const auto change = static_cast<uint8_t>(shape);
        raw[place % header_bytes] ^= change;
        if (change != 0 && judge_header(*page, header_bytes) == HeaderVerdict::valid) wrong("a changed header is valid");
    } else {
        if ((mode & 4) != 0) raw[header_used + place % (4088 - header_used)] = 1;
        if ((mode & 2) != 0) page->payload_xxh3 = xxh3(in.data, payload_bytes);
        if ((mode & 1) != 0) page->header_xxh3 = xxh3(raw, 4088);
    }
    OneBlock files;
    if ((mode & 32) != 0) files.read_bytes_max = 64 + place % 16384;
    files.file.resize(file_bytes(payload_bytes));
    std::memcpy(files.file.data(), raw, header_bytes);
    if (payload_bytes > 0) std::memcpy(files.file.data() + header_bytes, in.data, payload_bytes);
    if ((mode & 16) == 0 && shape != 0) files.file.resize(shape < 0x8000 ? files.file.size() + shape : files.file.size() - std::min<size_t>(files.file.size(), shape - 0x8000));
    judge_alone(files.file);
    load(files, std::min((mode & 8) != 0 ? page->payload_bytes : asked_given, payload_bytes_max));
    return 0;
}
