// The floor: what plain preadv and pwritev in a few threads can do, with the product's tasks and memory but without the product.
//
//   floor op=load dir=/mnt/x count=256 block_bytes=1048576 task_blocks=64 tasks=2 threads=4 arena_bytes=134217728 huge=1
//
// Speaks the workers' lines (see ../worker.py): fill, slice, clean, quit; a JSON line for each.
#include <algorithm>
#include <iostream>
#include <sstream>

#include "crew.h"
#include "works.h"

namespace {

double cpu_s() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

struct Floor {
  const Options o;
  Works works;
  Crew crew;
  unsigned long moved_on = 0;

  explicit Floor(const Options& options)
      : o(options), works(o), crew(static_cast<unsigned>(o.threads), o.op == "lookup" ? 64 : 1, work_of(o.op)) {}

  Crew::Work work_of(const std::string& op) {
    if (op == "load") return [this](unsigned t, unsigned long b, unsigned long s) { works.load(t, b, s); };
    if (op == "overwrite") return [this](unsigned t, unsigned long b, unsigned long s) { works.overwrite(t, b, s); };
    if (op == "new" || op == "replace") return [this](unsigned t, unsigned long b, unsigned long s) { works.make(t, b, s); };
    if (op == "recycle") return [this](unsigned t, unsigned long b, unsigned long s) { works.recycle(t, b, s); };
    if (op == "lookup") return [this](unsigned, unsigned long b, unsigned long) { works.look(b); };
    errno = EINVAL;
    fail("no such op: " + op);
  }

  void slice(double seconds, unsigned long blocks_max, unsigned long first, unsigned long seed) {
    std::mt19937_64 random(seed);
    std::vector<Task> tasks(o.tasks);
    const unsigned long rounds = std::max(works.slots() / o.tasks / o.task_blocks, 1UL);
    std::vector<double> took;
    unsigned long issued = 0, done = 0, outstanding = 0;
    const double cpu = cpu_s(), began = now_s();
    const auto give = [&](Task* task) {
      const unsigned long n = blocks_max ? std::min(o.task_blocks, blocks_max - issued) : o.task_blocks;
      if (n == 0 || now_s() - began >= seconds) return;
      task->blocks.resize(n);
      task->taken = 0;
      for (auto& block : task->blocks) {
        if (o.op == "load") block = random() % o.count;
        else if (o.op == "new") block = first + issued;
        else if (o.op == "recycle") block = moved_on++;
        else if (o.op == "lookup") block = issued % (2 * o.count);
        else block = (moved_on++) % o.count;
        ++issued;
      }
      // Round a share of the arena of its own: a task that began later may end sooner, and the next slots in turn are another's still.
      task->first_slot = (static_cast<unsigned long>(task - tasks.data()) * rounds + task->turn++ % rounds) * o.task_blocks;
      ++outstanding;
      crew.submit(task);
    };
    for (auto& task : tasks) give(&task);
    while (outstanding > 0) {
      Task* task = crew.finished();
      --outstanding;
      done += task->blocks.size();
      took.push_back(task->took_s);
      give(task);
    }
    const double spent = now_s() - began;
    std::cout << "{\"units\":" << done << ",\"bytes\":" << done * o.block_bytes << ",\"seconds\":" << spent << ",\"cpu_s\":" << cpu_s() - cpu << ",\"task_us\":[";
    for (size_t i = 0; i < took.size(); ++i) std::cout << (i ? "," : "") << static_cast<long>(took[i] * 1e6);
    std::cout << "]}" << std::endl;
  }
};

}  // namespace

int main(int argc, char** argv) {
  auto& floor = *new Floor(parse(argc, argv));  // its threads never end: neither does it
  std::cout << "{\"ready\":true,\"pages\":\"" << (floor.o.huge ? "hugetlb" : "4 KiB") << "\"}" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    if (verb == "quit") break;
    if (verb == "slice") {
      double seconds = 0;
      unsigned long blocks_max = 0, first = 0, seed = 0;
      words >> seconds >> blocks_max >> first >> seed;
      floor.slice(seconds, blocks_max, first, seed);
      continue;
    }
    unsigned long from = 0, n = 0;
    words >> from >> n;
    for (unsigned long i = from; i < from + n; ++i) {
      if (verb == "fill" && floor.o.op != "lookup") floor.works.remove(i), floor.works.make(0, i, i);
      if (verb == "fill" && floor.o.op == "lookup") floor.works.touch(i);
      if (verb == "clean") floor.works.remove(i);
    }
    std::cout << "{\"done\":true}" << std::endl;
  }
  std::_Exit(0);
}
