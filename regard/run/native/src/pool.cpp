#include "pool.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace regard {
namespace {

constexpr std::chrono::microseconds PATIENCE{50};  // layers follow one another, and waking a thread costs as much

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Waits awake until something is so, or patience ends.
template <class F>
void spin(F&& is_so) {
  const auto until = std::chrono::steady_clock::now() + PATIENCE;
  while (!is_so() && std::chrono::steady_clock::now() < until) pause();
}

class Pool {
 public:
  // False if another thread is using the pool.
  bool run(int64_t tasks, int threads, const std::function<void(int64_t)>& body) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return false;
    const int helpers = static_cast<int>(std::min<int64_t>(threads, tasks)) - 1;
    {
      std::lock_guard<std::mutex> guard(mutex_);
      for (; num_workers_ < helpers; ++num_workers_) std::thread(&Pool::work, this, generation_.load()).detach();
      body_ = &body;
      tasks_ = tasks;
      next_ = 0;
      error_ = nullptr;
      wanted_ = helpers;
      ++generation_;
    }
    wake_.notify_all();
    drain();
    std::unique_lock<std::mutex> guard(mutex_);
    wanted_ = 0;  // who has not come yet need not: all tasks are taken
    guard.unlock();
    spin([&] { return running_ == 0; });
    guard.lock();
    done_.wait(guard, [&] { return running_ == 0; });
    std::exception_ptr error = error_;
    guard.unlock();
    if (error) std::rethrow_exception(error);
    return true;
  }

 private:
  void work(uint64_t seen) {
    for (;;) {
      spin([&] { return generation_ != seen; });
      {
        std::unique_lock<std::mutex> guard(mutex_);
        wake_.wait(guard, [&] { return generation_ != seen; });
        seen = generation_;
        if (wanted_ == 0) continue;
        --wanted_;
        ++running_;
      }
      drain();
      std::lock_guard<std::mutex> guard(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  void drain() {
    for (int64_t task; (task = next_.fetch_add(1)) < tasks_;) {
      try {
        (*body_)(task);
      } catch (...) {
        std::lock_guard<std::mutex> guard(mutex_);
        if (!error_) error_ = std::current_exception();
        next_ = tasks_;
      }
    }
  }

  std::mutex turn_, mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int64_t)>* body_ = nullptr;
  std::atomic<int64_t> next_{0};
  int64_t tasks_ = 0;
  int num_workers_ = 0, wanted_ = 0;
  std::atomic<int> running_{0};
  std::atomic<uint64_t> generation_{0};
  std::exception_ptr error_;
};

std::atomic<Pool*> current{nullptr};

// Threads do not survive a fork: the child leaves the parent's pool untouched and builds its own when it needs one.
void forget() { current = nullptr; }

Pool& pool() {
  Pool* found = current.load();
  if (found == nullptr) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget);
    (void)registered;
    Pool* fresh = new Pool;  // never freed: its threads may outlive static destructors
    if (current.compare_exchange_strong(found, fresh)) {
      found = fresh;
    } else {
      delete fresh;
    }
  }
  return *found;
}

}  // namespace

void parallel(int64_t tasks, int threads, const std::function<void(int64_t)>& body) {
  if (threads > 1 && tasks > 1 && pool().run(tasks, threads, body)) return;
  for (int64_t task = 0; task < tasks; ++task) body(task);
}

}  // namespace regard
