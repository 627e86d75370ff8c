#include "sim/step_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "sim/svg.h"

namespace moge::sim {
namespace {

using nlohmann::ordered_json;

/// What `moge sim decode --json` prints, shortened.
ordered_json decode_result() {
  return ordered_json::parse(R"({
    "model": "pangu-pro-moe-72b-a16b", "hardware": "ascend-800i-a2", "cards": 4, "devices": 4,
    "weights": "w8a8", "kv": "fp16", "stage": "decode", "batch": 64, "context": 2048,
    "latency_ms": 50.0, "tpot_ms": 29.4, "tokens_per_step": 1.7, "tokens_per_s": 2176, "tokens_per_s_per_card": 544,
    "bottleneck": "memory", "memory_gib_per_device": 31.5, "fits": true,
    "memory": {"weights_gib": 18.2, "kv_cache_gib": 12.0, "activations_gib": 1.3, "limit_gib": 58.0},
    "plan": {"attention_dp": 2, "attention_tp": 2, "expert_ep": 4, "text": "PP1, attention DP2 x TP2"},
    "bound_ms": {"compute": 5, "memory": 28, "vector": 4, "network": 8, "overhead": 5},
    "breakdown": [
      {"op": "qkv", "ms": 6.0, "bound": "memory", "gflop": 250, "mb": 6000},
      {"op": "attention", "ms": 4.0, "bound": "vector", "gflop": 60, "mb": 3000},
      {"op": "o_proj", "ms": 5.0, "bound": "compute", "gflop": 180, "mb": 400},
      {"op": "attention_reduce", "ms": 8.0, "bound": "network", "gflop": 0, "mb": 160},
      {"op": "expert_gate_up", "ms": 14.0, "bound": "memory", "gflop": 900, "mb": 14000},
      {"op": "expert_down", "ms": 8.0, "bound": "memory", "gflop": 450, "mb": 7000},
      {"op": "step", "ms": 5.0, "bound": "overhead", "gflop": 0, "mb": 0}]})");
}

const Chart& chart(const Report& report, const std::string& id) {
  for (const Chart& c : report.charts)
    if (c.id == id) return c;
  throw std::runtime_error("no chart " + id);
}

TEST(StepReport, ShowsTheResultsNumbers) {
  const ordered_json r = decode_result();
  const Report report = step_report(r, {1.2e12, {{"w8a8", 400e12}, {"16 bit", 200e12}}}, {});
  EXPECT_EQ(report.title, "Decoding: pangu-pro-moe-72b-a16b on 4 x ascend-800i-a2");
  EXPECT_EQ(report.facts[0].value, "50.00");
  EXPECT_EQ(report.facts[1].value, "29.40");
  const Chart& breakdown = chart(report, "breakdown");
  double ms = 0;
  size_t bars = 0;
  for (const Series& s : breakdown.series) {
    ms += std::accumulate(s.x.begin(), s.x.end(), 0.0);
    bars += s.x.size();
    EXPECT_EQ(s.name == "network", s.y == std::vector<double>{3});
  }
  EXPECT_DOUBLE_EQ(ms, 50);
  EXPECT_EQ(bars, 7U);
  EXPECT_EQ(breakdown.y.categories[4], "expert_gate_up");

  // A kernel of 250 GFLOP and 6 GB in 6 ms: 41.7 FLOP a byte at 41.7 TFLOP/s.
  const Chart& roofline = chart(report, "roofline");
  const auto memory = std::ranges::find(roofline.series, "memory", &Series::name);
  ASSERT_NE(memory, roofline.series.end());
  EXPECT_NEAR(memory->x[0], 250.0 / 6, 1e-9);
  EXPECT_NEAR(memory->y[0], 250.0 / 6, 1e-9);
  EXPECT_EQ(std::ranges::find(roofline.series, "network", &Series::name), roofline.series.end());
  const Series& roof = roofline.series[0];
  EXPECT_EQ(roof.y[1], 400);
  EXPECT_NEAR(roof.x[1], 400 / 1.2, 1e-9);
  EXPECT_NEAR(roof.y[0] / roof.x[0], 1.2, 1e-9);

  EXPECT_EQ(report.tables[0].rows.size(), 7U);
  EXPECT_EQ(report.tables[0].rows[0][1], "6.000");
  EXPECT_EQ(report.tables[1].rows[0], (std::vector<std::string>{"attention_dp", "2"}));
  EXPECT_EQ(chart(report, "memory").guides[0].value, 58);
  EXPECT_THAT(svg(report.charts), testing::Not(testing::HasSubstr("nan")));
}

TEST(StepReport, SaysByHowMuchItDoesNotFit) {
  ordered_json r = decode_result();
  r["memory_gib_per_device"] = 60.5;
  const Report report = step_report(r, {1.2e12, {}}, {{"line", Mark::kLine, {1}, {1}}});
  EXPECT_EQ(report.facts[4].note, "does not fit: 2.50 GiB too much");
  EXPECT_EQ(chart(report, "throughput").series[0].name, "line");
}

}  // namespace
}  // namespace moge::sim
