#include "sim/network.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "machines.h"

namespace moge::sim {
namespace {

constexpr double kLink = 28e9;  // of a pair of NPUs

TEST(Network, OneDeviceHasNothingToSend) {
  const CollectiveRates r = collective_rates(shipped_hardware("ascend-800i-a2"), 1, 1);
  EXPECT_EQ(r.gather, 0);
  EXPECT_EQ(r.all_to_all, 0);
}

TEST(Network, TwoNpusOfAMeshShareOneLink) {
  const spec::Hardware a2 = shipped_hardware("ascend-800i-a2");
  // An all-gather of S bytes: half of them each way over the pair's link; eight use seven links each.
  EXPECT_DOUBLE_EQ(collective_rates(a2, 2, 1).gather, 1 / (2 * kLink));
  EXPECT_DOUBLE_EQ(collective_rates(a2, 8, 1).gather, 1 / (8 * kLink));
  EXPECT_DOUBLE_EQ(collective_rates(a2, 8, 0.5).gather, 2 / (8 * kLink));
  // An exchange in which every device sends everything to everybody moves what a gather does.
  EXPECT_DOUBLE_EQ(8 * collective_rates(a2, 8, 1).all_to_all, collective_rates(a2, 8, 1).gather);
}

TEST(Network, ASwitchIsBoundByEachDevicesLink) {
  const spec::Hardware h100 = shipped_hardware("h100-sxm");
  EXPECT_DOUBLE_EQ(collective_rates(h100, 4, 1).gather, 0.75 / 450e9);
  EXPECT_DOUBLE_EQ(collective_rates(h100, 8, 1).gather, 0.875 / 450e9);
  // Over two servers the eight ports of one count: half of the tensor comes from outside.
  EXPECT_DOUBLE_EQ(collective_rates(h100, 16, 1).gather, std::max(0.9375 / 450e9, 0.5 / 400e9));
}

TEST(Network, ACardsTwoChipsShareItsSlot) {
  const spec::Hardware duo = shipped_hardware("ascend-300i-duo");
  EXPECT_DOUBLE_EQ(collective_rates(duo, 4, 1).gather, (1 - 2.0 / 4) / 32e9);
  EXPECT_DOUBLE_EQ(collective_rates(duo, 8, 1).gather, (1 - 2.0 / 8) / 32e9);
}

TEST(Network, GroupsBetweenEachOtherShareLinks) {
  const spec::Hardware a2 = shipped_hardware("ascend-800i-a2");
  // Eight groups of two, each with one NPU in either of two servers: each has an eighth of the eight ports.
  EXPECT_DOUBLE_EQ(collective_rates(a2, 2, 1, 8).gather, 0.5 / (200e9 / 8));
  // Two apart inside a server, links are not shared.
  EXPECT_DOUBLE_EQ(collective_rates(a2, 4, 1, 2).gather, 1 / (4 * kLink));
}

TEST(Network, SendsToTheNextStage) {
  const spec::Hardware a2 = shipped_hardware("ascend-800i-a2");
  EXPECT_DOUBLE_EQ(send_rate(a2, 4, 1), 1 / kLink);
  EXPECT_DOUBLE_EQ(send_rate(a2, 8, 1), 8 / 200e9);
}

TEST(Network, RefusesMoreDevicesThanThereAre) {
  EXPECT_THROW(collective_rates(shipped_hardware("epyc-zen5-2cpu"), 2, 1), UsageError);
  EXPECT_THROW(send_rate(shipped_hardware("epyc-zen5-2cpu"), 1, 1), UsageError);
}

}  // namespace
}  // namespace moge::sim
