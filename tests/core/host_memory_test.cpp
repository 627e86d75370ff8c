#include "core/host_memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace moge {
namespace {

TEST(HostMemory, IsKnownAndLimited) {
  const int64_t free = host_free_bytes();
  EXPECT_GT(free, 0);
  EXPECT_LT(free, int64_t{1} << 50);
}

TEST(HostMemory, KnowsTheLimitOfTheAddressSpace) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  rlim_t pages = 0;  // of the address space; of a sanitizer's shadow too
  std::ifstream("/proc/self/statm") >> pages;
  ASSERT_GT(pages, 0U);
  const rlim_t size = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
  const rlimit limit{std::min(size + (rlim_t{1} << 30), before.rlim_max), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  const int64_t left = host_free_bytes();
  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_GT(left, 0);
  EXPECT_LE(left, int64_t{1} << 30);
}

}  // namespace
}  // namespace moge
