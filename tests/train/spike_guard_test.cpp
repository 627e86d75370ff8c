#include "train/spike_guard.h"

#include <gtest/gtest.h>

namespace moge::train {
namespace {

TEST(SpikeGuard, RefusesNanAndJumps) {
  SpikeGuard guard;
  EXPECT_FALSE(guard.accept(std::nan(""), 0));
  for (int i = 0; i < 200; ++i) EXPECT_TRUE(guard.accept(2.0 + (i % 2 ? 0.1 : -0.1), 4));
  EXPECT_FALSE(guard.accept(4.0, 4));
  EXPECT_TRUE(guard.accept(4.0, 0));
}

}  // namespace
}  // namespace moge::train
