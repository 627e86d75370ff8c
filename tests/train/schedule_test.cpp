#include "train/schedule.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace moge::train {
namespace {

TEST(Schedule, WarmsUpThenDecays) {
  const Phase cosine{.steps = 100, .lr = 1.0, .final_lr = 0.1, .warmup_steps = 10};
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 0), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 9), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 10), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 99), 0.1);
  const Phase wsd{.steps = 100, .lr = 1.0, .final_lr = 0.0, .decay = Decay::kWsd, .decay_fraction = 0.25};
  EXPECT_DOUBLE_EQ(learning_rate(wsd, 74), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(wsd, 87), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(wsd, 99), 0.0);
}

TEST(Schedule, PhasesFollowEachOther) {
  const std::vector<Phase> phases = {{.steps = 3}, {.steps = 2}};
  EXPECT_EQ(phase_of(phases, 2).phase_idx, 0U);
  EXPECT_EQ(phase_of(phases, 3).phase_idx, 1U);
  EXPECT_EQ(phase_of(phases, 4).step, 1);
  EXPECT_THROW(phase_of(phases, 5), Error);
}

}  // namespace
}  // namespace moge::train
