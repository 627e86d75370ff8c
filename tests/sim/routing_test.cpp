#include "sim/routing.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "machines.h"
#include "sim/imbalance.h"

namespace moge::sim {
namespace {

TEST(Routing, GroupsAreBalancedAndTopKIsNot) {
  const RoutingModel moge(shipped_model("pangu-pro-moe-72b-a16b"), 8, 0);
  EXPECT_EQ(moge.straggler(16), 1);
  EXPECT_EQ(moge.mean_rows(16), 16);  // 8 of 64 experts, an eighth on each of 8 devices
  EXPECT_GT(RoutingModel(shipped_model("qwen3-30b-a3b"), 8, 0).straggler(16), 1.1);
}

TEST(Routing, DistinctExpertsOfAGroup) {
  const RoutingModel moge(shipped_model("pangu-pro-moe-72b-a16b"), 8, 0);
  EXPECT_NEAR(moge.distinct_experts(1), 1, 1e-12);
  EXPECT_NEAR(moge.distinct_experts(2), 8 * (1 - std::pow(7.0 / 8, 2)), 1e-12);
  EXPECT_NEAR(moge.distinct_experts(1e6), 8, 1e-9);
  // A skewed router meets fewer; with next to no skew the sum over experts agrees with the closed form.
  const RoutingModel skewed(shipped_model("pangu-pro-moe-72b-a16b"), 8, 1);
  EXPECT_LT(skewed.distinct_experts(8), moge.distinct_experts(8));
  EXPECT_NEAR(RoutingModel(shipped_model("pangu-pro-moe-72b-a16b"), 8, 1e-12).distinct_experts(8),
              moge.distinct_experts(8), 1e-6);
}

/// The closed form of the busiest device against draws of plain top-K.
TEST(Routing, StragglerAgreesWithMonteCarlo) {
  spec::ModelConfig topk = shipped_model("pangu-pro-moe-72b-a16b");
  topk.num_expert_groups = 1;
  ThreadPool pool(1);
  for (const int64_t devices : {4, 8}) {
    for (const int64_t tokens : {16, 64, 512}) {
      const ImbalanceSetup setup{.num_devices = devices, .batch_tokens = tokens, .trials = 20'000};
      const double drawn = simulate_imbalance(setup, pool).straggler_factor();
      EXPECT_NEAR(RoutingModel(topk, devices, 0).straggler(static_cast<double>(tokens)), drawn, 0.02 * drawn)
          << devices << " devices, " << tokens << " tokens";
    }
  }
}

TEST(Routing, RefusesNegativeSkew) {
  EXPECT_THROW(RoutingModel(shipped_model("pangu-pro-moe-72b-a16b"), 8, -1), UsageError);
  EXPECT_THROW(RoutingModel(shipped_model("pangu-pro-moe-72b-a16b"), 8, NAN), UsageError);
}

}  // namespace
}  // namespace moge::sim
