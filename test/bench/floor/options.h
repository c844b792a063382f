// Options of the floor program: `name=value` words, all of them wanted, none unknown.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

struct Options {
  std::string op;   // load overwrite new replace recycle lookup
  std::string dir;  // where the files are
  unsigned long count = 0;        // files of the set
  unsigned long block_bytes = 0;  // payload of a file
  unsigned long task_blocks = 0;  // blocks of a task
  unsigned long tasks = 0;        // tasks outstanding
  unsigned long threads = 0;
  unsigned long arena_bytes = 0;  // slots are used in turn, so that none is hot in a cache
  bool huge = false;              // arena on 2 MiB pages
  bool header = false;            // a page before the payload, in the same call
  bool xxh3 = false;              // the payload's XXH3-64 is in that page: made by a store, compared by a load
  bool spread = false;            // files in 256 folders
};

[[noreturn]] inline void fail(const std::string& what) {
  std::printf("{\"error\":\"%s: %s\"}\n", what.c_str(), std::strerror(errno));
  std::fflush(stdout);
  std::_Exit(1);
}

inline Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto cut = word.find('=');
    const std::string name = word.substr(0, cut), value = cut == word.npos ? "" : word.substr(cut + 1);
    const unsigned long number = std::strtoul(value.c_str(), nullptr, 10);
    if (name == "op") o.op = value;
    else if (name == "dir") o.dir = value;
    else if (name == "count") o.count = number;
    else if (name == "block_bytes") o.block_bytes = number;
    else if (name == "task_blocks") o.task_blocks = number;
    else if (name == "tasks") o.tasks = number;
    else if (name == "threads") o.threads = number;
    else if (name == "arena_bytes") o.arena_bytes = number;
    else if (name == "huge") o.huge = number != 0;
    else if (name == "header") o.header = number != 0;
    else if (name == "xxh3") o.xxh3 = number != 0;
    else if (name == "spread") o.spread = number != 0;
    else errno = EINVAL, fail("no such option: " + name);
  }
  if (o.op.empty() || o.dir.empty() || !o.count || !o.task_blocks || !o.tasks || !o.threads) errno = EINVAL, fail("an option is missing");
  return o;
}
