#include "sim/op_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "refusal.h"
#include "temp_dir.h"

namespace moge::sim {
namespace {

using test::refusal;

constexpr const char* kGood = R"({"device": "H200", "ops": [
  {"op": "matmul", "shape": {"m": 16, "n": 1024, "k": 512, "dtype": "bf16"}, "ms": 0.02},
  {"op": "matmul", "shape": {"m": 64, "n": 1024, "k": 512, "dtype": "bf16"}, "ms": 0.05},
  {"op": "grouped_matmul", "shape": {"m": 4, "n": 256, "k": 512, "experts": 8, "dtype": "i8"}, "ms": 0.03},
  {"op": "routed_matmul", "shape": {"tokens": 4, "n": 256, "k": 512, "experts": 8, "topk": 2, "groups": 2,
                                    "dtype": "i8"}, "ms": 0.02},
  {"op": "attention", "shape": {"batch": 4, "context": 100, "heads": 8, "kv_heads": 2, "head_dim": 64, "dtype": "bf16"},
   "ms": 0.04},
  {"op": "attention", "shape": {"batch": 4, "context": 400, "heads": 8, "kv_heads": 2, "head_dim": 64, "dtype": "bf16"},
   "ms": 0.16},
  {"op": "rmsnorm", "shape": {"rows": 4}, "ms": 0.001}]})";

OpTable load(const std::string& text) {
  const test::TempDir dir;
  std::ofstream(dir / "ops.json") << text;
  return load_op_table(dir / "ops.json");
}

TEST(OpTable, InterpolatesBetweenMeasurements) {
  const OpTable table = load(kGood);
  EXPECT_EQ(table.device, "H200");
  EXPECT_EQ(table.size(), 4U);
  const OpSurface* matmul = table.find("matmul", "bf16", {1024, 512});
  ASSERT_NE(matmul, nullptr);
  EXPECT_DOUBLE_EQ(matmul->seconds(1), 20e-6);
  EXPECT_DOUBLE_EQ(matmul->seconds(16), 20e-6);
  EXPECT_NEAR(matmul->seconds(32), std::sqrt(20e-6 * 50e-6), 1e-18);  // half way, in logarithms
  EXPECT_DOUBLE_EQ(matmul->seconds(64), 50e-6);
  EXPECT_DOUBLE_EQ(matmul->seconds(128), 100e-6);
  EXPECT_TRUE(matmul->has(16));
  EXPECT_FALSE(matmul->has(32));
  EXPECT_NE(table.find("grouped_matmul", "i8", {256, 512, 8}), nullptr);
  EXPECT_NE(table.find("routed_matmul", "i8", {256, 512, 8, 2, 2}), nullptr);
  EXPECT_EQ(table.find("matmul", "i8", {1024, 512}), nullptr);
}

TEST(OpTable, InterpolatesAlongTheContextToo) {
  const OpTable table = load(kGood);
  const OpSurface* attention = table.find("attention", "bf16", {8, 2, 64});
  ASSERT_NE(attention, nullptr);
  EXPECT_DOUBLE_EQ(attention->seconds(4, 100), 40e-6);
  EXPECT_DOUBLE_EQ(attention->seconds(8, 100), 80e-6);
  EXPECT_DOUBLE_EQ(attention->seconds(4, 50), 40e-6);
  EXPECT_NEAR(attention->seconds(4, 200), std::sqrt(40e-6 * 160e-6), 1e-18);
  EXPECT_NEAR(attention->seconds(4, 800), 320e-6, 1e-18);
  EXPECT_TRUE(attention->has(4, 100));
  EXPECT_FALSE(attention->has(4, 200));
  EXPECT_FALSE(attention->has(8, 100));
}

TEST(OpTable, RefusesBrokenFiles) {
  const auto complaint = [](const std::string& from, const std::string& to) {
    std::string text = kGood;
    text.replace(text.find(from), from.size(), to);
    return refusal([&] { load(text); });
  };
  EXPECT_NE(complaint("0.02", "-1").find("above 0"), std::string::npos);
  EXPECT_NE(complaint("\"m\": 16", "\"m\": 0").find("m"), std::string::npos);
  EXPECT_NE(complaint("\"n\": 1024", "\"n\": 1e99").find("n"), std::string::npos);
  EXPECT_NE(complaint("\"device\"", "\"devise\"").find("device"), std::string::npos);
  EXPECT_NE(complaint("\"ops\": [", "\"ops\": [3, ").find("ops[0]"), std::string::npos);
  EXPECT_NE(complaint("{\"device\"", "[{\"device\"").find("ops.json"), std::string::npos);
}

}  // namespace
}  // namespace moge::sim
