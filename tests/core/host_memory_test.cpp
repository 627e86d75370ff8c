#include "core/host_memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

namespace moge {
namespace {

TEST(HostMemory, IsKnownAndLimited) {
  const int64_t free = host_free_bytes();
  EXPECT_GT(free, 0);
  EXPECT_LT(free, int64_t{1} << 50);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &none), 0);
  const int64_t left = host_free_bytes();
  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_EQ(left, 0);
}

}  // namespace
}  // namespace moge
