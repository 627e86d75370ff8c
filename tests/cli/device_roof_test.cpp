#include "cli/device_roof.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace moge::cli {
namespace {

constexpr DeviceRoof kRoof{.copy = 4e12, .product = 1e15, .operands = DType::kI8};

TEST(DeviceRoof, EachPassIsBoundByMemoryOrByArithmetic) {
  const Work decode(kRoof, 8e9, 1e11), prompt(kRoof, 4e9, 5e12);
  EXPECT_DOUBLE_EQ(decode.floor_seconds, 2e-3);
  EXPECT_DOUBLE_EQ(prompt.floor_seconds, 5e-3);
  Work both = decode;
  both += prompt;
  EXPECT_DOUBLE_EQ(both.bytes, 12e9);
  EXPECT_DOUBLE_EQ(both.flops, 5.1e12);
  EXPECT_DOUBLE_EQ(both.floor_seconds, 7e-3);
}

TEST(DeviceRoof, WorkIsPrintedBesideBothRates) {
  const Work work(kRoof, 8e9, 1e12);
  nlohmann::ordered_json out;
  add_work(out, work, 4e-3, kRoof);
  EXPECT_DOUBLE_EQ(out["bytes_per_second"], 2e12);
  EXPECT_DOUBLE_EQ(out["flops_per_second"], 2.5e14);
  EXPECT_DOUBLE_EQ(out["percent_of_copy_bandwidth"], 50);
  EXPECT_DOUBLE_EQ(out["percent_of_product_ceiling"], 25);
  EXPECT_DOUBLE_EQ(out["percent_of_roof"], 50);
  EXPECT_EQ(
      work_text(work, 4e-3, kRoof),
      "bytes    8.0 GB, 2000.0 GB/s: 50.0% of the 4000.0 GB/s of a copy\n"
      "FLOPs    1000.0 GFLOP, 250.0 TFLOP/s: 25.0% of the 1000.0 TFLOP/s of a large dense i8 product of "
      "ours\n"
      "roof     2.0 ms, 50.0% of the time, mostly memory\n");
}

}  // namespace
}  // namespace moge::cli
