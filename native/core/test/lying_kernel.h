// lying_kernel.h — every system call of every lane, with somebody in between who fails, shortens, holds and lies.
//
// The test program is linked with --wrap=syscall: the core's raw calls come here, the product's code pays nothing
// and knows nothing. What becomes of a call is drawn from the seed, the operation's number and how many calls that
// operation has made, and so hardly depends on how the threads are scheduled.
#pragma once

#include <linux/aio_abi.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "../block_work.h"
#include "../monitor.h"

namespace kvlane::test {

// What an operation must put up with. An honest one's calls do what they say; a mild one's are interrupted and shortened
// as a file system may do it at any time; both must end as if nothing had been.
enum class Mood : uint8_t { honest, mild, failing, lying };

// Faults of the product that the storm must find: each is what the product would do if it lacked one thing.
enum class Planted : uint8_t {
    nothing,
    shared_temporary,     // temporaries have no unique name and no O_EXCL: two stores write one file
    late_write,           // the name changes before the last bytes are written
    descriptor_kept,      // a descriptor is not closed
    temporary_kept,       // a temporary is not unlinked
    memory_given_early,   // an abandoned operation's memory counts as free while its call is in the kernel
    second_completion,    // a completion is told twice
    late_name,            // what was not published in time is published, where it should be unlinked
};

class LyingKernel {
  public:
    LyingKernel(uint64_t seed, Planted planted) : seed_(seed), planted_(planted) {}

    // From now until `stop`, every lane's calls. One at a time.
    void start();
    void stop();

    Mood mood_of(uint64_t operation) const;
    bool is_held(uint64_t operation) const;  // one of its calls stays inside until release()
    bool fire(uint64_t operation, const char* what, unsigned one_of) const;
    // What make_work hands out: says on this thread whose calls follow.
    std::unique_ptr<BlockWork> watched(std::shared_ptr<Operation> operation);

    void given_back(const void* memory);  // no call may have it any more

    void release();  // all that are inside now
    unsigned inside() const;

    // What came to light.
    std::vector<std::string> violations() const;
    std::set<std::pair<pid_t, int>> open_descriptors() const;
    std::set<std::string> excused() const;          // names that may be left over: their unlink or rename did not do what it said
    bool tainted(const std::string& hex) const;     // a write of this key lied: its block may be damaged, and must be found so
    uint64_t calls() const { return calls_.load(); }
    uint64_t faults() const { return faults_.load(); }
    uint64_t held() const { return held_.load(); }  // so many calls stayed inside

    long call(long number, const long* a);

  private:
    struct Submitted;
    bool draw(const char* what, unsigned one_of);
    void wait_here();
    long open(long number, const long* a);
    long close(const long* a);
    long transfer(long number, const long* a);
    bool crumbs(bool reads, size_t asked, long moved);
    static long crumb(long moved);
    long stat(const long* a);
    long change_name(long number, const long* a);
    long submit(const long* a);
    long collect(long number, const long* a);
    void look_at(const iovec* parts, int count);
    void say(const std::string& what);
    static bool may_be_damaged();
    void taint();
    void excuse(const char* name);
    static long refuse(int error);

    const uint64_t seed_;
    const Planted planted_;
    std::atomic<uint64_t> calls_{0}, faults_{0}, held_{0};
    mutable Monitor gate_;
    uint64_t opened_ = 0;
    unsigned inside_ = 0;
    mutable std::mutex mutex_;
    std::set<std::pair<pid_t, int>> descriptors_;
    std::set<std::string> excused_, tainted_;
    std::set<const void*> given_back_;
    std::vector<std::string> violations_;
};

}  // namespace kvlane::test
