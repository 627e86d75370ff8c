#include "core/memory_text.h"

#include <gtest/gtest.h>

namespace moge {
namespace {

TEST(MemoryText, GivesSmallSizesInSmallUnits) {
  EXPECT_EQ(memory_text(0), "0.0 KiB");
  EXPECT_EQ(memory_text(18 << 10), "18.0 KiB");
  EXPECT_EQ(memory_text(103 << 10), "0.1 MiB");
  EXPECT_EQ(memory_text((int64_t{7} << 20) / 2), "3.5 MiB");
  EXPECT_EQ(memory_text(102 << 20), "102.0 MiB");
  EXPECT_EQ(memory_text(103 << 20), "0.10 GiB");
  EXPECT_EQ(memory_text(int64_t{3} << 40), "3072.00 GiB");
}

TEST(MemoryText, LeavesOutWhatIsEmpty) {
  const MemoryPart parts[] = {{"weights", 3 << 20}, {"workspace", 0}, {"graphs", 18 << 10}};
  EXPECT_EQ(memory_text(parts), "weights 3.0 MiB, graphs 18.0 KiB");
}

}  // namespace
}  // namespace moge
