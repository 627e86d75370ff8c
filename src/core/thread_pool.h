// One pool of threads for all CPU work. Tasks are numbered; which thread runs which task is not fixed, so a
// task's result may only depend on its number: then results don't depend on the thread count.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace moge {

class ThreadPool {
 public:
  /// `num_threads` counts the caller, who works too. 0 = MOGE_THREADS, or the CPUs this process may use.
  explicit ThreadPool(int num_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls fn(task, thread) for each task in 0..num_tasks-1, thread in 0..num_threads()-1; returns when all
  /// are done, whether or not every worker had a part in it: one that has lost its core holds nobody up. An
  /// exception of a task is rethrown here after the others finished. Not reentrant: a task must not call
  /// run().
  template <class Fn>
  void run(int64_t num_tasks, const Fn& fn) {
    run_erased(
        num_tasks,
        [](const void* f, int64_t task, int thread) { (*static_cast<const Fn*>(f))(task, thread); }, &fn);
  }

  /// The same for tasks that stream memory in the order of their numbers: each thread takes a range of
  /// neighbouring ones from its beginning and only then, one by one, what is left of the others'. After an
  /// exception some tasks may not have run.
  template <class Fn>
  void run_ranges(int64_t num_tasks, const Fn& fn) {
    deal(num_tasks);
    run(num_threads(), [&](int64_t range, int thread) {
      for (int64_t task = take(range); task >= 0; task = take(range)) fn(task, thread);
    });
  }

 private:
  using Call = void (*)(const void* fn, int64_t task, int thread);
  void run_erased(int64_t num_tasks, Call call, const void* fn);
  void work(int thread);
  void drain(int thread);
  void deal(int64_t num_tasks);
  int64_t take(int64_t range);  ///< -1: nothing is left
  struct State;
  std::unique_ptr<State> state_;
  std::vector<std::jthread> workers_;
};

/// fn(begin, end) over [0, n) in blocks of `grain`; the blocks do not depend on the thread count.
template <class Fn>
void parallel_for(ThreadPool& pool, int64_t n, int64_t grain, const Fn& fn) {
  const int64_t blocks = (n + grain - 1) / grain;
  if (blocks <= 1) {
    if (n > 0) fn(int64_t{0}, n);
    return;
  }
  pool.run(blocks, [&](int64_t block, int) {
    const int64_t begin = block * grain;
    fn(begin, begin + grain < n ? begin + grain : n);
  });
}

}  // namespace moge
