// Schedules, balance statistics, the spike guard, event files.
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/files.h"
#include "temp_dir.h"
#include "train/balance_stats.h"
#include "train/csv_log.h"
#include "train/event_file.h"
#include "train/schedule.h"
#include "train/spike_guard.h"

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

TEST(BalanceStats, ImbalanceScoreOfEquation3) {
  const std::vector<int32_t> counts = {4, 0, 2, 2, 1, 3};  // 12 rows of 6 tokens
  const BalanceStats s = balance_stats(counts, 3, 6);
  EXPECT_DOUBLE_EQ(s.imbalance_score, 0.0);  // 4 rows on each of three devices
  EXPECT_DOUBLE_EQ(s.min_share, 0.0);
  EXPECT_DOUBLE_EQ(s.max_share, 2.0);
  EXPECT_DOUBLE_EQ(balance_stats(counts, 6, 6).imbalance_score, 4.0 / 6);
}

TEST(SpikeGuard, RefusesNanAndJumps) {
  SpikeGuard guard;
  EXPECT_FALSE(guard.accept(std::nan(""), 0));
  for (int i = 0; i < 200; ++i) EXPECT_TRUE(guard.accept(2.0 + (i % 2 ? 0.1 : -0.1), 4));
  EXPECT_FALSE(guard.accept(4.0, 4));
  EXPECT_TRUE(guard.accept(4.0, 0));
}

TEST(EventFile, ChecksumsAreTFRecords) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);            // the check value of CRC-32C
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);  // RFC 3720, B.4
}

TEST(CsvLog, ResumingDropsLaterRows) {
  const test::TempDir dir;
  {
    CsvLog log(dir / "log.csv", {"step", "loss"}, 0);
    for (int step = 0; step < 4; ++step) log.row(step, {1.5 * step});
  }
  CsvLog(dir / "log.csv", {"step", "loss"}, 2).row(2, {7});
  EXPECT_EQ(read_text_file(dir / "log.csv"), "step,loss\n0,0\n1,1.5\n2,7\n");
  EXPECT_THROW(CsvLog(dir / "log.csv", {"step", "other"}, 0), FileError);
}

TEST(CsvLog, ResumingDropsARowThatAFullDiskCut) {
  const test::TempDir dir;
  atomic_write_file(dir / "log.csv", "step,loss\n10,2\n11,3\n1");  // of "12,4\n"
  CsvLog(dir / "log.csv", {"step", "loss"}, 12).row(12, {4});
  EXPECT_EQ(read_text_file(dir / "log.csv"), "step,loss\n10,2\n11,3\n12,4\n");
}

}  // namespace
}  // namespace moge::train
