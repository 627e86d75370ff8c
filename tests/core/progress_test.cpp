#include "core/progress.h"

#include <gtest/gtest.h>

namespace moge {
namespace {

TEST(Progress, BarsAreOfOneWidth) {
  EXPECT_EQ(progress_bar(0, 48), "[--------------------]   0%");
  EXPECT_EQ(progress_bar(12, 48), "[#####---------------]  25%");
  EXPECT_EQ(progress_bar(int64_t{68} << 30, int64_t{68} << 30), "[####################] 100%");
  EXPECT_EQ(progress_bar(0, 0), progress_bar(1, 1));
}

TEST(Progress, IsSilentWhileAJobMayBeShort) {
  testing::internal::CaptureStderr();
  {
    ProgressLine line(std::chrono::hours(1));
    line.show("half", true);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  testing::internal::CaptureStderr();
  {
    ProgressLine line;
    line.show("half");
    line.show("more");  // too soon
    line.show("whole", true);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "half\nwhole\n");
}

}  // namespace
}  // namespace moge
