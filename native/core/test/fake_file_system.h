// fake_file_system.h — the kernel's file system with a hand on every call.
//
// A test counts the calls, answers one itself, lets it happen and still answers an error (a reply lost
// on the way), shortens transfers, or does something of its own just before one.
#pragma once

#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "../file_system.h"

namespace kvlane {

class FakeFileSystem final : public FileSystem {
  public:
    std::vector<std::string> calls;                                                        // names, in order
    std::function<void(size_t number, const std::string& name)> before;                     // e.g. abandon the operation now
    std::function<std::optional<int64_t>(size_t number, const std::string& name)> instead;  // answer without the call
    std::function<std::optional<int64_t>(size_t number, const std::string& name)> after;    // answer in spite of the call
    size_t transfer_bytes_max = SIZE_MAX;
    std::optional<uint32_t> direct_align;  // what statx says about O_DIRECT
    std::optional<uint64_t> blocks;  // that the file system says it has
    bool refuses_direct_open = false;
    bool refuses_no_replace = false;
    bool refuses_noatime = false;
    bool refuses_cached = false;

    size_t count(const std::string& name) const {
        size_t n = 0;
        for (const std::string& call : calls) n += call == name ? 1 : 0;
        return n;
    }
    void forget() {
        calls.clear();
        before = nullptr;
        instead = nullptr;
        after = nullptr;
        transfer_bytes_max = SIZE_MAX;
    }

    int open_root(const char* path) override {
        return as_int(pass("open_root", [&] { return real_.open_root(path); }));
    }
    int open_beneath(int directory, const char* name, int flags, uint32_t mode, Lookup lookup) override {
        const char* what = (flags & creating) != 0 ? "create" : (flags & path_only) != 0 ? "open_path" : "open";
        const int fd = as_int(pass(what, [&]() -> int64_t {
            if (refuses_cached && lookup == Lookup::cached_only) return -EINVAL;
            if (refuses_noatime && (flags & no_atime) != 0) return -EPERM;
            const int opened = real_.open_beneath(directory, name, flags, mode, lookup);
            // As Linux does it: the file has been made by then.
            if (refuses_direct_open && (flags & direct) != 0 && opened >= 0) {
                real_.close(opened);
                return -EINVAL;
            }
            return opened;
        }));
        return fd;
    }
    int stat(int fd, Freshness freshness, FileStat& out) override {
        const int result = as_int(pass("stat", [&] { return real_.stat(fd, freshness, out); }));
        if (result == 0 && direct_align) out.direct_align = *direct_align;
        return result;
    }
    int stat_name(int directory, const char* name, FileStat& out) override {
        return as_int(pass("stat_name", [&] { return real_.stat_name(directory, name, out); }));
    }
    int fs_type(int fd, uint64_t& magic) override {
        return as_int(pass("fs_type", [&] { return real_.fs_type(fd, magic); }));
    }
    int64_t preadv(int fd, const iovec* parts, int count, int64_t offset) override {
        return pass("preadv", [&] { return shortened(parts, count, [&](const iovec* p, int n) { return real_.preadv(fd, p, n, offset); }); });
    }
    int64_t pwritev(int fd, const iovec* parts, int count, int64_t offset) override {
        return pass("pwritev", [&] { return shortened(parts, count, [&](const iovec* p, int n) { return real_.pwritev(fd, p, n, offset); }); });
    }
    int fsync(int fd) override {
        return as_int(pass("fsync", [&] { return real_.fsync(fd); }));
    }
    int rename(int from_directory, const char* from, int to_directory, const char* to, uint32_t flags) override {
        return as_int(pass("rename", [&] { return refuses_no_replace && flags != 0 ? -22 : real_.rename(from_directory, from, to_directory, to, flags); }));
    }
    int link(int from_directory, const char* from, int to_directory, const char* to) override {
        return as_int(pass("link", [&] { return real_.link(from_directory, from, to_directory, to); }));
    }
    int unlink(int directory, const char* name) override {
        return as_int(pass("unlink", [&] { return real_.unlink(directory, name); }));
    }
    int make_directory(int directory, const char* name, uint32_t mode) override {
        return as_int(pass("make_directory", [&] { return real_.make_directory(directory, name, mode); }));
    }
    int remove_directory(int directory, const char* name) override {
        return as_int(pass("remove_directory", [&] { return real_.remove_directory(directory, name); }));
    }
    int64_t entries(int fd, void* to, size_t bytes) override {
        return pass("entries", [&] { return real_.entries(fd, to, bytes); });
    }
    int64_t seek(int fd, uint64_t to) override {
        return pass("seek", [&] { return real_.seek(fd, to); });
    }
    int touch(int fd) override {
        return as_int(pass("touch", [&] { return real_.touch(fd); }));
    }
    int drop_direct(int fd) override {
        return as_int(pass("drop_direct", [&] { return real_.drop_direct(fd); }));
    }
    // Closing is always done, whatever is answered: that is how Linux has it.
    int close(int fd) override {
        const size_t number = calls.size();
        calls.push_back("close");
        if (before) before(number, "close");
        const int closed = real_.close(fd);
        if (instead) {
            if (const auto answer = instead(number, "close")) return static_cast<int>(*answer);
        }
        return closed;
    }

    int room(int fd, FileSystemRoom& out) override {
        const int result = as_int(pass("room", [&] { return real_.room(fd, out); }));
        if (result == 0 && blocks) out.blocks = *blocks;
        return result;
    }

  private:
    static int as_int(int64_t value) { return static_cast<int>(value); }
    static const int creating;
    static const int path_only;
    static const int direct;
    static const int no_atime;

    template <typename Call>
    int64_t pass(const char* name, Call&& call) {
        const size_t number = calls.size();
        calls.push_back(name);
        if (before) before(number, name);
        if (instead) {
            if (const auto answer = instead(number, name)) return *answer;
        }
        const int64_t result = call();
        if (after) {
            if (const auto answer = after(number, name)) {
                // What a lost reply hands out is no descriptor: give back the one that was opened.
                if (result > 0 && (std::strncmp(name, "open", 4) == 0 || std::strcmp(name, "create") == 0)) real_.close(static_cast<int>(result));
                return *answer;
            }
        }
        return result;
    }

    template <typename Call>
    int64_t shortened(const iovec* parts, int count, Call&& call) {
        iovec cut[3];
        int kept = 0;
        size_t left = transfer_bytes_max;
        for (int i = 0; i < count && left > 0; i++) {
            cut[kept] = parts[i];
            if (cut[kept].iov_len > left) cut[kept].iov_len = left;
            left -= cut[kept].iov_len;
            kept++;
        }
        return call(cut, kept);
    }

    FileSystem& real_ = posix_file_system();
};

}  // namespace kvlane
