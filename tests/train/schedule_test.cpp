#include "train/schedule.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "core/error.h"
#include "train/config.h"

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

/// arXiv 2505.21411, section 3.1: 9.6 T, 3 T and 0.4 T tokens, and a rate that goes on where the phase before
/// ended.
TEST(Schedule, TheReportsPhases) {
  const std::filesystem::path configs = std::filesystem::path(MOGE_SOURCE_DIR) / "configs/train";
  const std::vector<Phase> phases = load_train_config(configs / "report-phases.toml").phases;
  ASSERT_EQ(phases.size(), 3U);
  const double trillions[] = {9.6, 3.0, 0.4};
  const double rates[] = {3e-4, 3e-5, 1e-5, 1e-7};
  for (size_t i = 0; i < 3; ++i) {
    const Phase& p = phases[i];
    EXPECT_NEAR(static_cast<double>(p.steps * p.batch_tokens), trillions[i] * 1e12,
                static_cast<double>(p.batch_tokens) / 2);
    EXPECT_DOUBLE_EQ(learning_rate(p, p.warmup_steps), rates[i]);
    EXPECT_DOUBLE_EQ(learning_rate(p, p.steps - 1), rates[i + 1]);
  }
}

}  // namespace
}  // namespace moge::train
