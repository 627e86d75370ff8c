#include "cli/bench_device.h"

#include <gtest/gtest.h>

namespace moge::cli {
namespace {

TEST(DecodeLengths, TimedStepsLieAroundTheContext) {
  for (const int64_t steps : {1, 2, 47, 48, 64}) {
    const DecodeLengths l = decode_lengths(2048, 8, steps);
    EXPECT_EQ(l.mean, 2048);
    EXPECT_EQ(l.longest, l.first + 8 + steps);
    // A step attends to what was cached and to its own token; of two means in the middle the lower one.
    int64_t attended = 0;
    for (int64_t step = 1; step <= steps; ++step) attended += l.first + 8 + step;
    EXPECT_EQ(attended / steps, l.mean);
  }
}

TEST(DecodeLengths, BeginWithOneTokenWhereTheContextIsShort) {
  const DecodeLengths l = decode_lengths(20, 8, 64);
  EXPECT_EQ(l.first, 1);
  EXPECT_EQ(l.longest, 73);
  EXPECT_EQ(l.mean, 41);
}

}  // namespace
}  // namespace moge::cli
