// Threads that work through tasks of blocks, one block at a time, oldest task first: the shape of a lane pool with nothing around it.
#pragma once
#include <condition_variable>
#include <ctime>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

inline double now_s() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

struct Task {
  std::vector<unsigned long> blocks;
  unsigned long first_slot = 0;
  unsigned long turn = 0;  // of its slots
  size_t taken = 0, left = 0;
  double began_s = 0, took_s = 0;
};

class Crew {
 public:
  using Work = std::function<void(unsigned thread, unsigned long block, unsigned long slot)>;

  // grain: blocks taken at once; more than one where a block is cheaper than taking it
  Crew(unsigned threads, size_t grain, Work work) : grain_(grain), work_(std::move(work)) {
    for (unsigned i = 0; i < threads; ++i) std::thread([this, i] { run(i); }).detach();  // the process ends by _Exit
  }

  void submit(Task* task) {
    task->left = task->blocks.size();
    task->began_s = now_s();
    {
      std::lock_guard hold(lock_);
      waiting_.push_back(task);
    }
    work_there_.notify_all();
  }

  Task* finished() {
    std::unique_lock hold(lock_);
    task_done_.wait(hold, [this] { return !done_.empty(); });
    Task* task = done_.front();
    done_.pop_front();
    return task;
  }

 private:
  void run(unsigned thread) {
    std::unique_lock hold(lock_);
    for (;;) {
      work_there_.wait(hold, [this] { return !waiting_.empty(); });
      Task* task = waiting_.front();
      const size_t from = task->taken, to = std::min(from + grain_, task->blocks.size());
      task->taken = to;
      if (to == task->blocks.size()) waiting_.pop_front();
      hold.unlock();
      for (size_t i = from; i < to; ++i) work_(thread, task->blocks[i], task->first_slot + i);
      hold.lock();
      task->left -= to - from;
      if (task->left == 0) {
        task->took_s = now_s() - task->began_s;
        done_.push_back(task);
        task_done_.notify_one();
      }
    }
  }

  size_t grain_;
  Work work_;
  std::mutex lock_;
  std::condition_variable work_there_, task_done_;
  std::deque<Task*> waiting_, done_;
};
