#include "core/thread_pool.h"

#include <gtest/gtest.h>

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

TEST(ThreadPool, RethrowsAndGoesOn) {
  ThreadPool pool(3);
  EXPECT_THROW(pool.run(10, [](int64_t task, int) { check(task != 7, "seven"); }), Error);
  std::atomic<int> sum = 0;
  pool.run(10, [&](int64_t task, int) { sum += static_cast<int>(task); });
  EXPECT_EQ(sum, 45);
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
