#include "directory.h"

#include <dirent.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

namespace kvlane {

int DirectoryReader::next(Entry& entry) {
    for (;;) {
        if (at_ >= got_) {
            const int64_t got = lane_.entries(op_, fd_, lane_.tail_page(), page_bytes);
            if (got <= 0) return static_cast<int>(got);
            if (got > static_cast<int64_t>(page_bytes)) return -EIO;
            got_ = static_cast<size_t>(got);
            at_ = 0;
        }
        const std::byte* const raw = lane_.tail_page() + at_;
        constexpr size_t name_at = offsetof(dirent64, d_name);
        uint16_t length = 0;
        if (got_ - at_ > name_at) std::memcpy(&length, raw + offsetof(dirent64, d_reclen), sizeof length);
        if (length <= name_at || length > got_ - at_) return -EIO;  // else the walk would go nowhere, or behind the page
        std::memcpy(&entry.inode, raw + offsetof(dirent64, d_ino), sizeof entry.inode);
        std::memcpy(&entry.next, raw + offsetof(dirent64, d_off), sizeof entry.next);
        const auto* name = reinterpret_cast<const char*>(raw + name_at);
        entry.name = {name, strnlen(name, length - name_at)};
        at_ += length;
        if (entry.name != "." && entry.name != "..") return 1;
    }
}

}  // namespace kvlane
