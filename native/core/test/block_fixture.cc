#include "block_fixture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "../paths.h"

namespace kvlane {

const int FakeFileSystem::creating = O_CREAT;
const int FakeFileSystem::path_only = O_PATH;
const int FakeFileSystem::direct = O_DIRECT;
const int FakeFileSystem::no_atime = O_NOATIME;

Memory::Memory(uint64_t bytes) : bytes_(bytes) {
    const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    const uint64_t body = (bytes + page - 1) / page * page;
    mapped_ = body + 2 * page;
    base_ = static_cast<std::byte*>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    data_ = base_ + page;
    if (body > 0) mprotect(data_, body, PROT_READ | PROT_WRITE);
}
Memory::~Memory() { munmap(base_, mapped_); }
void Memory::fill_pattern(uint64_t seed) {
    for (uint64_t i = 0; i < bytes_; i++) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        data_[i] = static_cast<std::byte>(seed >> 56);
    }
}
void Memory::fill(uint8_t value) {
    if (bytes_ > 0) std::memset(data_, value, bytes_);
}
bool Memory::equals(const Memory& other) const {
    return bytes_ == other.bytes_ && (bytes_ == 0 || std::memcmp(data_, other.data_, bytes_) == 0);
}
void Memory::mark_rest(uint8_t value) {
    for (uint64_t i = bytes_; i % 4096 != 0; i++) data_[i] = static_cast<std::byte>(value);
}
bool Memory::untouched(uint8_t value) const {
    for (uint64_t i = bytes_; i % 4096 != 0; i++) {
        if (data_[i] != static_cast<std::byte>(value)) return false;
    }
    return true;
}

std::string temporary_directory() {
    const char* base = std::getenv("KVLANE_TEST_DIR");
    std::string name = std::string(base != nullptr ? base : "/var/tmp") + "/kvlane-core-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) {
        std::perror(name.c_str());
        std::abort();
    }
    return name;
}
void remove_tree(const std::string& directory) {
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
}

TestStore::TestStore(bool create) : root(temporary_directory()), mount(std::make_shared<Mount>(root)) {
    lane = std::make_unique<LaneContext>(files, word, clock);
    if (!create) return;
    // Written here and not by identify, which forces it out to the disk each time.
    static unsigned number = 0;
    char store_id[40];
    std::snprintf(store_id, sizeof store_id, "%032x", ++number);
    write_file(root + "/kvlane.json", "{\"format\":1,\"store_id\":\"" + std::string(store_id) + "\",\"created\":\"2026-01-01T00:00:00Z\"}\n");
    mount->set_store_id(store_id);
}

TestStore::~TestStore() {
    files.forget();
    lane->close_roots();
    remove_tree(root);
}

std::shared_ptr<Operation> TestStore::operation(Kind kind, LaneClass lane_class) {
    auto op = std::make_shared<Operation>();
    static std::atomic<uint64_t> next_id = 1;  // threads of a test make theirs, too
    op->id = next_id++;
    op->kind = kind;
    op->lane_class = lane_class;
    op->mount = mount;
    op->root_generation = generation;
    op->name_space = name_space;
    op->begin_running();
    return op;
}
std::shared_ptr<Operation> TestStore::load(const std::string& hex, const Memory& to) {
    auto op = operation(Kind::load);
    op->hex = hex;
    op->memory = to.data();
    op->bytes = to.bytes();
    return op;
}
std::shared_ptr<Operation> TestStore::store(const std::string& hex, const Memory& from, bool replace) {
    auto op = operation(Kind::store, LaneClass::store);
    op->hex = hex;
    op->memory = from.data();
    op->bytes = from.bytes();
    op->replace = replace;
    return op;
}
std::shared_ptr<Operation> TestStore::lookup(const std::vector<std::string>& names) {
    auto op = operation(Kind::lookup, LaneClass::metadata);
    op->names = names;
    op->found = std::vector<std::atomic<uint8_t>>(names.size());
    return op;
}
std::shared_ptr<Operation> TestStore::remove(const std::string& hex) {
    auto op = operation(Kind::remove, LaneClass::metadata);
    op->hex = hex;
    return op;
}
std::shared_ptr<Operation> TestStore::aside(const std::string& hex, uint64_t inode) {
    auto op = operation(Kind::aside, LaneClass::metadata);
    op->hex = hex;
    op->inode = inode;
    return op;
}

Result TestStore::run(const std::shared_ptr<Operation>& operation) { return run(operation, *lane); }
Result TestStore::run(const std::shared_ptr<Operation>& operation, LaneContext& on) {
    auto work = make_block_work(operation);
    auto next = work->start(on);
    while (next) next = work->resume(on, on.transfer(*operation, *next));
    return operation->result;
}

std::string TestStore::path(const std::string& hex) const { return root + "/" + block_path(name_space, hex); }

std::vector<std::string> TestStore::tree() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) names.push_back(entry.path().string().substr(root.size() + 1));
    std::sort(names.begin(), names.end());
    return names;
}
std::vector<std::string> TestStore::leftovers() const {
    std::vector<std::string> found;
    for (const std::string& name : tree()) {
        if (name.find(".tmp") != std::string::npos || name.find(writer_name()) != std::string::npos) found.push_back(name);
    }
    return found;
}
std::string TestStore::contents(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}
void TestStore::write_file(const std::string& file, const std::string& contents) {
    std::filesystem::create_directories(std::filesystem::path(file).parent_path());
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    out << contents;
}
uint64_t TestStore::inode(const std::string& file) {
    struct stat found = {};
    return lstat(file.c_str(), &found) == 0 ? found.st_ino : 0;
}
void TestStore::set_modified(const std::string& file, int64_t unix_s) {
    const timespec times[2] = {{unix_s, 0}, {unix_s, 0}};
    utimensat(AT_FDCWD, file.c_str(), times, 0);
}
size_t TestStore::open_descriptors() {
    size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) n += entry.path().empty() ? 0 : 1;
    return n;
}

}  // namespace kvlane
