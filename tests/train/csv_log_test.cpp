#include "train/csv_log.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/files.h"
#include "temp_dir.h"

namespace moge::train {
namespace {

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
