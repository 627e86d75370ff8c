#include "sim/search_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "sim/svg.h"
#include "sim/training_report.h"

namespace moge::sim {
namespace {

using nlohmann::ordered_json;

ordered_json shape(int64_t index, int64_t layers, int64_t hidden, double speed) {
  return {{"index", index},
          {"hidden_size", hidden},
          {"num_hidden_layers", layers},
          {"num_attention_heads", 40},
          {"num_key_value_heads", 8},
          {"num_experts", 64},
          {"moe_intermediate_size", 1344},
          {"parameters", 72e9},
          {"active_parameters", 16e9 + 1e9 * static_cast<double>(index)},
          {"score", speed},
          {"platforms",
           {{{"tokens_per_s_per_card", speed}, {"tpot_ms", 50}, {"batch", 100}},
            {{"tokens_per_s_per_card", 2 * speed}, {"tpot_ms", 99}, {"batch", 30}}}}};
}

TEST(SearchReport, TellsFrontFloorAndBaseApart) {
  const ordered_json results = {shape(0, 40, 5120, 900), shape(1, 48, 5120, 700), shape(2, 52, 4096, 650),
                                shape(3, 56, 4096, 0)};
  const ordered_json answer = {
      {"shapes", 4},
      {"depth_floor", 48},
      {"top", {results[1], results[2]}},
      {"front", {results[1]}},
      {"base", {{"shape", "s"}, {"rank", 1}, {"of", 2}, {"band", 0.05}, {"result", results[2]}}}};
  const Report report = search_report(answer, results, {{"a", 4, 50}, {"b", 2, 100}});
  const Chart& both = report.charts[0];
  ASSERT_EQ(both.series.size(), 4U);  // no machine serves shape 3, which is left out
  EXPECT_EQ(both.series[0].name, "fewer than 48 layers");
  EXPECT_EQ(both.series[0].x, std::vector<double>{900});
  EXPECT_EQ(both.series[1].y, std::vector<double>{1300});
  EXPECT_EQ(both.series[2].name, "Pareto front");
  EXPECT_EQ(both.series[2].x, std::vector<double>{700});
  EXPECT_EQ(both.series[3].name, "base model");
  EXPECT_EQ(report.charts[2].series[0].x, (std::vector<double>{40, 48, 52}));
  EXPECT_EQ(report.charts[2].guides[0].value, 48);
  EXPECT_EQ(report.tables[0].marked, std::vector<size_t>{1});
  EXPECT_EQ(report.tables[0].rows[0][1], "48");
  EXPECT_EQ(report.tables[1].rows[1][0], "base");
  EXPECT_EQ(report.facts[3].value, "1");
  EXPECT_EQ(report.subtitle, "4 shapes on 4 x a (TPOT <= 50 ms) and 2 x b (TPOT <= 100 ms)");
  EXPECT_THAT(svg(report.charts), testing::Not(testing::HasSubstr("nan")));
}

TEST(TrainingReport, ComparesAPlanWithItsBaseline) {
  ordered_json plan = {
      {"plan", {{"text", "TP8"}}},
      {"devices", 3840},
      {"latency_ms", 4000},
      {"mfu", 0.4},
      {"tokens_per_s", 1e6},
      {"tokens_per_s_per_device", 260},
      {"micro_batches", 20},
      {"bubble", 0.05},
      {"padded_layers", 2},
      {"memory_gib_per_device", 40},
      {"fits", true},
      {"memory",
       {{"weights_and_gradients_gib", 20}, {"optimizer_gib", 8}, {"activations_gib", 12}, {"limit_gib", 60}}},
      {"breakdown",
       {{{"op", "matmul"}, {"ms", 3000}},
        {{"op", "context_parallel"}, {"ms", 0}},
        {{"op", "bubble"}, {"ms", 1000}}}}};
  ordered_json result = plan;
  result["model"] = "m";
  result["hardware"] = "h";
  result["sequence"] = 4096;
  result["global_batch_tokens"] = 4'000'000;
  plan["mfu"] = 0.3;
  plan["breakdown"][0]["ms"] = 3500;
  result["baseline"] = plan;
  result["mfu_gain"] = 1.0 / 3;
  const Report report = training_report(result);
  EXPECT_EQ(report.facts[0].value, "40.00");
  EXPECT_EQ(report.facts[1].value, "+33.3");
  const Chart& parts = report.charts[0];
  EXPECT_EQ(parts.y.categories,
            (std::vector<std::string>{"matmul", "bubble"}));  // neither has context_parallel
  EXPECT_EQ(parts.series[0].x, (std::vector<double>{3000, 1000}));
  EXPECT_EQ(parts.series[1].x, (std::vector<double>{3500, 1000}));
  EXPECT_EQ(report.tables[0].columns, (std::vector<std::string>{"What", "plan", "baseline"}));
  EXPECT_THAT(svg(report.charts), testing::Not(testing::HasSubstr("nan")));
  result.erase("baseline");
  EXPECT_EQ(training_report(result).charts[0].series.size(), 1U);
}

}  // namespace
}  // namespace moge::sim
