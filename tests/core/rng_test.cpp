#include "core/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace moge {
namespace {

// Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}));
  EXPECT_EQ(philox4x32({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}),
            (std::array<uint32_t, 4>{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU}));
}

TEST(Rng, MomentsAndStreams) {
  const Rng rng(42);
  double sum = 0;
  double squares = 0;
  constexpr int kN = 100'000;
  for (int i = 0; i < kN; ++i) {
    const double x = rng.normal(i);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kN, 0.0, 4.0 / std::sqrt(kN));
  EXPECT_NEAR(squares / kN, 1.0, 4.0 * std::sqrt(2.0 / kN));
  EXPECT_NE(Rng(42, 1).bits(0), rng.bits(0));
}

TEST(Rng, NormalsInARowAreThoseAlone) {
  const Rng rng(7, 3);
  for (const auto& [begin, end] :
       {std::pair<uint64_t, uint64_t>{0, 6}, {0, 5}, {3, 8}, {3, 3}, {5, 6}, {4, 5}, {9, 8}}) {
    uint64_t next = begin;
    rng.for_normals(begin, end, [&](uint64_t i, float x) {
      EXPECT_EQ(i, next++);
      EXPECT_EQ(x, rng.normal(i));
    });
    EXPECT_EQ(next, std::max(begin, end));
  }
  // Box-Muller on the values 2 i and 2 i + 1.
  EXPECT_EQ(rng.normal(5),
            std::sqrt(-2.0F * std::log(1.0F - rng.uniform(10))) * std::cos(6.28318530718F * rng.uniform(11)));
}

}  // namespace
}  // namespace moge
