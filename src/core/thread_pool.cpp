#include "core/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <utility>

#include "core/error.h"

namespace moge {

namespace {

/// Long enough to bridge the gap between two ops of a layer, short enough that an idle process sleeps.
constexpr int kSpins = 20'000;

int default_num_threads() {
  if (const char* env = std::getenv("MOGE_THREADS"); env && *env != '\0') {
    char* end = nullptr;
    const int64_t n = std::strtol(env, &end, 10);
    check<UsageError>(end != env && *end == 0 && n >= 0 && n <= 4096,
                      "MOGE_THREADS: expected a whole number from 0 to 4096, got '", env, "'");
    if (n > 0) return static_cast<int>(n);
  }
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

/// Tasks that run_ranges() has dealt to one thread.
struct alignas(64) TaskRange {
  std::atomic<int64_t> next{0};
  int64_t end = 0;
};

struct ThreadPool::State {
  explicit State(int num_threads) : ranges(static_cast<size_t>(num_threads)) {}

  // A run() is a new generation. A thread takes a task by lowering `unclaimed`; that it was above 0 proves
  // that a run is open and will stay so until this task is counted in `unfinished`. Only then are the fields
  // of the run read: a worker that wakes late finds nothing to take, or takes part in a later run.
  alignas(64) std::atomic<int64_t> generation{0};
  alignas(64) std::atomic<int64_t> unclaimed{0};  ///< at most 0 when nothing is left
  alignas(64) std::atomic<int64_t> unfinished{0};
  std::atomic<bool> stop{false};
  int64_t num_tasks = 0;
  Call call = nullptr;
  const void* fn = nullptr;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<int> sleepers{0};
  std::exception_ptr error;
  std::vector<TaskRange> ranges;
};

ThreadPool::ThreadPool(int num_threads) {
  if (num_threads == 0) num_threads = default_num_threads();
  check<UsageError>(num_threads >= 1, "a thread pool needs at least one thread, got ", num_threads);
  state_ = std::make_unique<State>(num_threads);
  for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  state_->stop = true;
  {
    const std::lock_guard lock(state_->mutex);
    ++state_->generation;
  }
  state_->wake.notify_all();
  workers_.clear();  // joins
}

void ThreadPool::work(int thread) {
  int64_t seen = 0;
  while (true) {
    for (int i = 0; i < kSpins && state_->generation.load(std::memory_order_acquire) == seen; ++i)
      _mm_pause();
    if (state_->generation.load(std::memory_order_acquire) == seen) {
      std::unique_lock lock(state_->mutex);
      ++state_->sleepers;
      state_->wake.wait(lock, [&] { return state_->generation.load(std::memory_order_acquire) != seen; });
      --state_->sleepers;
    }
    seen = state_->generation.load(std::memory_order_acquire);
    if (state_->stop) return;
    drain(thread);
  }
}

void ThreadPool::drain(int thread) {
  State& s = *state_;
  int64_t finished = 0;
  while (true) {
    const int64_t left = s.unclaimed.fetch_sub(1, std::memory_order_acq_rel);
    if (left <= 0) break;
    try {
      s.call(s.fn, s.num_tasks - left, thread);
    } catch (...) {
      const std::lock_guard lock(s.mutex);
      if (!s.error) s.error = std::current_exception();
    }
    ++finished;
  }
  // Once for all: run() cannot end before.
  if (finished > 0) s.unfinished.fetch_sub(finished, std::memory_order_acq_rel);
}

void ThreadPool::deal(int64_t num_tasks) {
  std::vector<TaskRange>& ranges = state_->ranges;
  const int64_t count = std::ssize(ranges);
  for (int64_t i = 0; i < count; ++i) {
    ranges[i].next.store(i * num_tasks / count, std::memory_order_relaxed);
    ranges[i].end = (i + 1) * num_tasks / count;
  }
}

int64_t ThreadPool::take(int64_t range) {
  std::vector<TaskRange>& ranges = state_->ranges;
  const int64_t count = std::ssize(ranges);
  for (int64_t i = 0; i < count; ++i) {
    TaskRange& from = ranges[(range + i) % count];
    const int64_t task = from.next.fetch_add(1, std::memory_order_relaxed);
    if (task < from.end) return task;
  }
  return -1;
}

void ThreadPool::run_erased(int64_t num_tasks, Call call, const void* fn) {
  if (workers_.empty() || num_tasks <= 1) {
    for (int64_t task = 0; task < num_tasks; ++task) call(fn, task, 0);
    return;
  }
  State& s = *state_;
  s.num_tasks = num_tasks;
  s.call = call;
  s.fn = fn;
  s.unfinished.store(num_tasks, std::memory_order_relaxed);
  s.unclaimed.store(num_tasks, std::memory_order_release);
  {
    // The lock pairs with the wait's predicate: a worker is either before its check or asleep.
    const std::lock_guard lock(s.mutex);
    s.generation.fetch_add(1, std::memory_order_release);
  }
  if (s.sleepers.load() > 0) s.wake.notify_all();
  drain(0);
  // Spin first: the last tasks end together. Yield later: a worker may have lost its core.
  for (int i = 0; s.unfinished.load(std::memory_order_acquire) != 0; ++i) {
    if (i < kSpins)
      _mm_pause();
    else
      std::this_thread::yield();
  }
  if (s.error) std::rethrow_exception(std::exchange(s.error, nullptr));
}

}  // namespace moge
