#include "sim/op_table.h"

#include <gtest/gtest.h>

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
  {"op": "attention", "shape": {"batch": 4, "context": 100, "heads": 8, "kv_heads": 2, "head_dim": 64, "dtype": "bf16"},
   "ms": 0.04},
  {"op": "rmsnorm", "shape": {"rows": 4}, "ms": 0.001}]})";

OpTable load(const std::string& text) {
  const test::TempDir dir;
  std::ofstream(dir / "ops.json") << text;
  return load_op_table(dir / "ops.json");
}

TEST(OpTable, InterpolatesBetweenMeasurements) {
  const OpTable table = load(kGood);
  EXPECT_EQ(table.device, "H200");
  EXPECT_EQ(table.size(), 3U);
  const OpCurve* curve = table.find("matmul", "bf16", 1024, 512);
  ASSERT_NE(curve, nullptr);
  EXPECT_DOUBLE_EQ(curve->seconds(1), 20e-6);
  EXPECT_DOUBLE_EQ(curve->seconds(16), 20e-6);
  EXPECT_DOUBLE_EQ(curve->seconds(40), 35e-6);
  EXPECT_DOUBLE_EQ(curve->seconds(64), 50e-6);
  EXPECT_DOUBLE_EQ(curve->seconds(128), 100e-6);
  EXPECT_NE(table.find("grouped_matmul", "i8", 256, 512, 8), nullptr);
  EXPECT_EQ(table.find("matmul", "i8", 1024, 512), nullptr);
  ASSERT_NE(table.find("attention", "bf16", 8, 2, 64), nullptr);
  EXPECT_DOUBLE_EQ(table.find("attention", "bf16", 8, 2, 64)->seconds(800), 80e-6);
}

TEST(OpTable, RefusesBrokenFiles) {
  const auto complaint = [](const std::string& from, const std::string& to) {
    std::string text = kGood;
    text.replace(text.find(from), from.size(), to);
    return refusal([&] { load(text); });
  };
  EXPECT_NE(complaint("0.02", "-1").find("positive"), std::string::npos);
  EXPECT_NE(complaint("\"m\": 16", "\"m\": 0").find("m"), std::string::npos);
  EXPECT_NE(complaint("\"n\": 1024", "\"n\": 1e99").find("n"), std::string::npos);
  EXPECT_NE(complaint("\"device\"", "\"devise\"").find("device"), std::string::npos);
  EXPECT_NE(complaint("\"ops\": [", "\"ops\": [3, ").find("ops[0]"), std::string::npos);
  EXPECT_NE(complaint("{\"device\"", "[{\"device\"").find("ops.json"), std::string::npos);
}

}  // namespace
}  // namespace moge::sim
