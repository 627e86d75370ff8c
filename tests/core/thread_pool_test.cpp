#include "core/thread_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <numeric>

#include "core/error.h"

namespace moge {
namespace {

TEST(ThreadPool, RunsEachTaskOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      std::vector<int> runs(37, 0);
      pool.run(37, [&](int64_t task, int thread) {
        ASSERT_LT(thread, threads);
        ++runs[task];
      });
      EXPECT_EQ(std::accumulate(runs.begin(), runs.end(), 0), 37);
      EXPECT_EQ(*std::max_element(runs.begin(), runs.end()), 1);
    }
  }
}

TEST(ThreadPool, RunsEachTaskOfItsRangesOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const int64_t num_tasks : {0, 1, 4, 37})
      for (int round = 0; round < 200; ++round) {
        std::vector<int> runs(37, 0);
        pool.run_ranges(num_tasks, [&](int64_t task, int) { ++runs[task]; });
        for (int64_t task = 0; task < 37; ++task) ASSERT_EQ(runs[task], task < num_tasks ? 1 : 0);
      }
  }
}

TEST(ThreadPool, ThreadsHaveNeighbouringTasks) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  std::array<int, 10> threads{};
  pool.run_ranges(10, [&](int64_t task, int thread) {
    threads[task] = thread;
    if (task % 5 == 0)
      for (++arrived; arrived < 2;) std::this_thread::yield();  // so that each thread has a range
    if (task == 9)
      while (arrived < 3) std::this_thread::yield();  // the other thread finds nothing to take over
    if (task == 4) ++arrived;
  });
  EXPECT_EQ(std::count(threads.begin(), threads.begin() + 5, threads[0]), 5);
  EXPECT_NE(threads[0], threads[5]);
}

TEST(ThreadPool, TakesOverTheRangeOfAThreadThatIsHeldUp) {
  ThreadPool pool(2);
  std::atomic<int> runs{0};
  pool.run_ranges(10, [&](int64_t task, int) {
    ++runs;
    if (task == 0)
      while (runs < 10) std::this_thread::yield();
  });
  EXPECT_EQ(runs, 10);
}

TEST(ThreadPool, RethrowsAndGoesOn) {
  ThreadPool pool(3);
  EXPECT_THROW(pool.run(10, [](int64_t task, int) { check(task != 7, "seven"); }), Error);
  std::atomic<int> sum = 0;
  pool.run(10, [&](int64_t task, int) { sum += static_cast<int>(task); });
  EXPECT_EQ(sum, 45);
}

/// Runs so short that workers arrive late, when their run is over and perhaps the next has begun: each task
/// must still run once, with the arguments of its own run.
TEST(ThreadPool, LateWorkersMeetOnlyOpenRuns) {
  ThreadPool pool(4);
  for (int64_t round = 0; round < 2000; ++round) {
    const int64_t n = 2 + round % 5;
    std::array<int64_t, 8> seen{};  // on this run's stack frame: a late write would be caught by the next
    pool.run(n, [&seen, round](int64_t task, int) { seen[task] += round + task; });
    for (int64_t i = 0; i < 8; ++i) ASSERT_EQ(seen[i], i < n ? round + i : 0) << "round " << round;
  }
}

/// A thread that a signal stops until it is let go.
class Stopped {
 public:
  explicit Stopped(pthread_t thread) {
    EXPECT_EQ(pipe(entered_), 0);
    EXPECT_EQ(pipe(leave_), 0);
    struct sigaction action {};
    action.sa_handler = [](int) {
      char byte = 0;
      if (write(entered_[1], &byte, 1) != 1 || read(leave_[0], &byte, 1) != 1) _exit(1);
    };
    EXPECT_EQ(sigaction(SIGUSR1, &action, &before_), 0);
    EXPECT_EQ(pthread_kill(thread, SIGUSR1), 0);
    char byte = 0;
    EXPECT_EQ(read(entered_[0], &byte, 1), 1);
  }
  ~Stopped() {
    EXPECT_EQ(write(leave_[1], "", 1), 1);
    EXPECT_EQ(sigaction(SIGUSR1, &before_, nullptr), 0);
  }

 private:
  // Statics: a handler has no other way to them. They stay open: the thread may still be reading.
  static inline int entered_[2], leave_[2];
  struct sigaction before_ {};
};

TEST(ThreadPool, DoesNotWaitForAWorkerThatHasNoTask) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  pthread_t worker{};
  pool.run(2, [&](int64_t, int thread) {
    if (thread == 1) worker = pthread_self();
    for (++arrived; arrived < 2;) std::this_thread::yield();  // so that each thread takes one task
  });
  // By now it sleeps, or spins; it is not between, where it would hold the pool's mutex.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const Stopped stopped(worker);
  std::vector<int> threads(50, -1);
  pool.run(50, [&](int64_t task, int thread) { threads[task] = thread; });
  EXPECT_EQ(threads, std::vector<int>(50, 0));
}

TEST(ParallelFor, BlocksDoNotDependOnThreads) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    std::vector<int64_t> ends(10, -1);
    parallel_for(pool, 95, 10, [&](int64_t begin, int64_t end) { ends[begin / 10] = end; });
    EXPECT_EQ(ends, (std::vector<int64_t>{10, 20, 30, 40, 50, 60, 70, 80, 90, 95}));
  }
}

}  // namespace
}  // namespace moge
