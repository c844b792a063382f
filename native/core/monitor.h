// monitor.h — a mutex with a condition that waits until a point of CLOCK_MONOTONIC.
//
// Plain pthreads rather than std::condition_variable: its wait_until goes through
// pthread_cond_clockwait, which GCC 12's ThreadSanitizer does not know and reports as a double lock.
#pragma once

#include <pthread.h>
#include <time.h>

#include <cstdint>

namespace kvlane {

class Monitor {
  public:
    Monitor() {
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&condition_, &attributes);
        pthread_condattr_destroy(&attributes);
        // Mostly held for a few hundred instructions: to look again for that long costs less than to sleep and be woken.
        pthread_mutexattr_t kind;
        pthread_mutexattr_init(&kind);
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP  // glibc's
        pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
        pthread_mutex_init(&mutex_, &kind);
        pthread_mutexattr_destroy(&kind);
    }
    ~Monitor() {
        pthread_cond_destroy(&condition_);
        pthread_mutex_destroy(&mutex_);
    }
    Monitor(const Monitor&) = delete;
    Monitor& operator=(const Monitor&) = delete;

    // std::lock_guard and std::unique_lock take it by these names.
    void lock() { pthread_mutex_lock(&mutex_); }
    void unlock() { pthread_mutex_unlock(&mutex_); }

    // To be called with the lock held. Both may return for no reason.
    void wait() { pthread_cond_wait(&condition_, &mutex_); }
    void wait_until(uint64_t at_us) {
        const timespec at{static_cast<time_t>(at_us / 1'000'000), static_cast<long>(at_us % 1'000'000) * 1'000};
        pthread_cond_timedwait(&condition_, &mutex_, &at);
    }
    void wake_one() { pthread_cond_signal(&condition_); }
    void wake_all() { pthread_cond_broadcast(&condition_); }

  private:
    pthread_mutex_t mutex_;
    pthread_cond_t condition_;
};

}  // namespace kvlane
