// block_identify.cc — which store lies at a path; with `create`, makes one where there is none.
//
// Uses a root of its own, opened by path and closed again: what it finds becomes the identity that all
// other roots are compared with.
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <cerrno>
#include <ctime>

#include "block_steps.h"
#include "header.h"
#include "json_text.h"
#include "mount.h"
#include "paths.h"
#include "probe.h"
#include "store_identity.h"

namespace kvlane {

std::string fs_name(uint64_t magic) {
    switch (magic) {
        case 0xef53: return "ext4";  // ext2 and ext3 share the number
        case 0x58465342: return "xfs";
        case 0x9123683e: return "btrfs";
        case 0x01021994: return "tmpfs";
        case 0x65735546: return "fuse";
        case 0x6969: return "nfs";
        case 0x00c36400: return "ceph";
        case 0x0bd00bd0: return "lustre";
        case 0x47504653: return "gpfs";
        case 0x794c7630: return "overlay";
        case 0xff534d42: case 0xfe534d42: return "cifs";
        case 0xf2f52010: return "f2fs";
        case 0xca451a4e: return "bcachefs";
        case 0x2fc12fc1: return "zfs";
        case 0x19830326: return "beegfs";
        default: break;
    }
    static constexpr char digits[] = "0123456789abcdef";
    std::string text = "0x";
    for (int shift = 28; shift >= 0; shift -= 4) text += digits[(magic >> shift) & 15];
    return text;
}

namespace {

class IdentifyWork final : public Steps {
  public:
    using Steps::Steps;

    std::optional<Transfer> start(LaneContext& lane) override {
        const char* path = op_.mount->root.c_str();
        int root = lane.open_root_by_path(op_, path);
        if (root == -ENOENT && op_.create) {
            // Its parent must be there: a whole missing path is a typing error, or a parent that is not mounted.
            const int made = lane.make_directory(op_, AT_FDCWD, path, directory_mode(op_.file_mode));
            if (made < 0 && made != -EEXIST) return fail(made, Phase::open, "the root directory " + op_.mount->root + " cannot be made");
            root = lane.open_root_by_path(op_, path);
        }
        if (root == -ENOENT || root == -ENOTDIR) return end(Status::not_found, root, Phase::open, "there is no directory " + op_.mount->root);
        if (root < 0) return fail(root, Phase::open, "the root directory cannot be opened");
        identify(lane, root);
        close(lane, root);
        return std::nullopt;
    }

  private:
    std::nullopt_t identify(LaneContext& lane, int root) {
        IdentityReading found = read_identity(lane, op_, root);
        bool created = false;
        if (found.verdict == IdentityVerdict::absent && op_.create) {
            Phase phase = Phase::open;
            const int made = publish_small_file(lane, op_, root, identity_name, fresh_identity(), Publish::only_if_absent, op_.file_mode, phase);
            if (made < 0 && made != -EEXIST) return fail(made, phase, "kvlane.json cannot be made");
            created = made == 0;  // else somebody made it at the same time: theirs counts
            found = read_identity(lane, op_, root);
        }
        switch (found.verdict) {
            case IdentityVerdict::found: break;
            case IdentityVerdict::absent:
                return end(Status::not_found, -ENOENT, Phase::open, "no store is at " + op_.mount->root + " (kvlane.json is missing)");
            case IdentityVerdict::unreadable_text:
                return end(Status::wrong_store, 0, found.phase, "kvlane.json at " + op_.mount->root + " does not describe a store of format 1");
            case IdentityVerdict::failed: return fail(found.error, found.phase, "kvlane.json cannot be read");
        }
        if (created) make_probe_block(lane, op_, root);  // for the first probe; without it that one makes it
        return describe(lane, root, found.store_id, created);
    }

    std::nullopt_t describe(LaneContext& lane, int root, const std::string& store_id, bool created) {
        FileStat stat;
        const int stated = lane.stat(op_, root, stat);
        if (stated < 0) return fail(stated, Phase::stat);
        uint64_t magic = 0;
        const int typed = lane.fs_type(op_, root, magic);
        if (typed < 0) return fail(typed, Phase::stat);
        bool direct = false;
        int fd = lane.open(op_, root, identity_name, O_RDONLY | O_DIRECT | O_NONBLOCK | O_NOCTTY);
        if (fd >= 0) {
            FileStat file;
            direct = lane.stat(op_, fd, file) == 0 &&
                     (file.direct_align == FileStat::unknown || (file.direct_align > 0 && file.direct_align <= page_bytes));
            close(lane, fd);
        } else if (fd != -EINVAL) {
            return fail(fd, Phase::open);
        }
        const std::string text = "{\"store_id\":" + json_quoted(store_id) + ",\"device\":\"" + std::to_string(stat.device_major) + ":" +
                                 std::to_string(stat.device_minor) + "\",\"fs_type\":\"" + fs_name(magic) + "\",\"direct\":" + (direct ? "true" : "false") +
                                 ",\"created\":" + (created ? "true" : "false") + "}";
        return end(Status::ok, 0, Phase::stat, text);
    }

    static std::string fresh_identity() {
        unsigned char random[16] = {};
        // A store is made long after boot; should the pool still be empty, writer name and clock make up for it.
        if (::getrandom(random, sizeof random, GRND_NONBLOCK) != static_cast<ssize_t>(sizeof random)) {
            const std::string text = writer_name() + std::to_string(unix_us());
            const uint64_t seed = xxh3(text.data(), text.size());
            for (size_t i = 0; i < sizeof random; i++) random[i] = static_cast<unsigned char>(seed >> (i % 8 * 8)) ^ static_cast<unsigned char>(i * 31);
        }
        std::string id;
        for (const unsigned char byte : random) {
            id += "0123456789abcdef"[byte >> 4];
            id += "0123456789abcdef"[byte & 15];
        }
        const time_t now = static_cast<time_t>(unix_us() / 1'000'000);
        tm utc = {};
        gmtime_r(&now, &utc);
        char created[32] = {};
        strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &utc);
        return "{\"format\":" + std::to_string(store_format) + ",\"store_id\":\"" + id + "\",\"created\":\"" + created + "\"}\n";
    }
};

}  // namespace

std::unique_ptr<BlockWork> make_identify(std::shared_ptr<Operation> operation) { return std::make_unique<IdentifyWork>(std::move(operation)); }

}  // namespace kvlane
