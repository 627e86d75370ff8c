#include "train/balance_stats.h"

#include <gtest/gtest.h>

namespace moge::train {
namespace {

TEST(BalanceStats, ImbalanceScoreOfEquation3) {
  const std::vector<int32_t> counts = {4, 0, 2, 2, 1, 3};  // 12 rows of 6 tokens
  const BalanceStats s = balance_stats(counts, 3, 6);
  EXPECT_DOUBLE_EQ(s.imbalance_score, 0.0);  // 4 rows on each of three devices
  EXPECT_DOUBLE_EQ(s.min_share, 0.0);
  EXPECT_DOUBLE_EQ(s.max_share, 2.0);
  EXPECT_DOUBLE_EQ(balance_stats(counts, 6, 6).imbalance_score, 4.0 / 6);
}

}  // namespace
}  // namespace moge::train
