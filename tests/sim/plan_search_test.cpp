#include "sim/plan_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "machines.h"
#include "refusal.h"
#include "sim/plan_file.h"
#include "temp_dir.h"

namespace moge::sim {
namespace {

using test::refusal;
const Precision kW8A8{WeightFormat::kW8A8, KvFormat::k16};

TEST(PlanSearch, PlansAreValidDistinctAndComplete) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  const spec::Hardware a2 = shipped_hardware("ascend-800i-a2");
  for (const int64_t devices : {1, 2, 4, 8, 16}) {
    const auto all = serving_plans(model, a2, devices, PlanSpace::kAll);
    const auto served = serving_plans(model, a2, devices, PlanSpace::kServed);
    EXPECT_FALSE(served.empty());
    for (size_t i = 0; i < all.size(); ++i) {
      EXPECT_NO_THROW(all[i].validate(model));
      EXPECT_EQ(all[i].devices(), devices);
      EXPECT_EQ(std::count(all.begin(), all.end(), all[i]), 1) << all[i].str();
    }
    for (const spec::ParallelPlan& plan : served)
      EXPECT_EQ(std::count(all.begin(), all.end(), plan), 1) << plan.str();
  }
  const spec::ParallelPlan h2p = load_plan(kConfigs + "plans/report-h2p.toml");
  const auto eight = serving_plans(model, a2, 8, PlanSpace::kServed);
  EXPECT_EQ(std::count(eight.begin(), eight.end(), h2p), 1);
}

TEST(PlanSearch, FastestIsTheFastestThatFits) {
  const PlanSearch search(shipped_model("pangu-pro-moe-72b-a16b"), shipped_device("ascend-800i-a2"), kW8A8, 8,
                          PlanSpace::kAll);
  const StepLoad load = decode_load(200, 2048);
  const PlanChoice best = search.fastest(load, 200, 2048);
  EXPECT_TRUE(best.memory.fits());
  for (const StepModel& m : search.models())
    if (m.memory(200, 2048, 200).fits()) {
      EXPECT_LE(best.seconds, m.seconds(load));
    }
  EXPECT_EQ(search.model(best.plan).seconds(load), best.seconds);
}

TEST(PlanSearch, BestBatchKeepsTheGoalAndIsAsLargeAsItCanBe) {
  const PlanSearch search(shipped_model("pangu-pro-moe-72b-a16b"), shipped_device("ascend-800i-a2"), kW8A8,
                          4);
  const ServingGoal goal{.context = 2048, .max_step_s = 0.05};
  const auto best = search.best_batch(goal);
  ASSERT_TRUE(best.has_value());
  EXPECT_STREQ(best->limit, "tpot");
  EXPECT_LE(best->choice.seconds, 0.05);
  EXPECT_GT(
      search.model(best->choice.plan).seconds(decode_load(static_cast<double>(best->requests + 1), 2048)),
      0.05);
  const auto relaxed = search.best_batch({.context = 2048, .max_step_s = 10});
  EXPECT_STREQ(relaxed->limit, "memory");
  EXPECT_TRUE(relaxed->choice.memory.fits());
  EXPECT_FALSE(search.model(relaxed->choice.plan)
                   .memory(static_cast<double>(relaxed->requests + 1), 2049,
                           static_cast<double>(relaxed->requests + 1))
                   .fits());
  EXPECT_STREQ(search.best_batch({.context = 2048, .max_step_s = 10, .max_requests = 8})->limit, "requests");
}

TEST(PlanSearch, SaysWhyNothingIsFeasible) {
  const ServingGoal goal{.context = 2048, .max_step_s = 1e-3};
  const PlanSearch slow(shipped_model("pangu-pro-moe-72b-a16b"), shipped_device("ascend-800i-a2"), kW8A8, 4);
  EXPECT_FALSE(slow.best_batch(goal).has_value());
  EXPECT_FALSE(slow.why_infeasible(goal).memory);
  EXPECT_GT(slow.why_infeasible(goal).least_step_s, 1e-3);
  const PlanSearch full(shipped_model("pangu-pro-moe-72b-a16b"), shipped_device("ascend-800i-a2"), kW8A8, 1);
  EXPECT_FALSE(full.best_batch(goal).has_value());
  EXPECT_TRUE(full.why_infeasible(goal).memory);
  EXPECT_GT(full.why_infeasible(goal).least_memory_bytes, full.why_infeasible(goal).memory_limit_bytes);
}

TEST(PlanSearch, RefusesImpossibleNumbersOfDevices) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  const Device a2 = shipped_device("ascend-800i-a2");
  EXPECT_NE(
      refusal<UsageError>([&] { PlanSearch(model, a2, kW8A8, 53); }).find("no plan splits this model evenly"),
      std::string::npos);
  EXPECT_NE(refusal<UsageError>([&] { PlanSearch(model, a2, kW8A8, 0); }).find("at least 1"),
            std::string::npos);
  EXPECT_NE(refusal<UsageError>([&] {
              PlanSearch(model, shipped_device("epyc-zen5-2cpu"), {}, 2);
            }).find("joins 1"),
            std::string::npos);
  EXPECT_NE(refusal<UsageError>([&] {
              PlanSearch(model, a2, kW8A8, 4, spec::ParallelPlan{});
            }).find("is for 1 devices"),
            std::string::npos);
}

TEST(PlanFile, WritesWhatItReads) {
  const test::TempDir dir;
  const spec::ParallelPlan plan = load_plan(kConfigs + "plans/report-h2p.toml");
  std::ofstream(dir / "p.json") << plan_json(plan).dump();
  EXPECT_EQ(load_plan(dir / "p.json"), plan);
  std::ofstream(dir / "answer.json") << nlohmann::ordered_json{
      {"latency_ms", 1},
      {"plan", plan_json(plan)}}.dump();
  EXPECT_EQ(load_plan(dir / "answer.json"), plan);
}

TEST(PlanFile, RefusesBrokenFiles) {
  const test::TempDir dir;
  const auto complaint = [&](const std::string& text) {
    std::ofstream(dir / "p.toml") << text;
    return refusal([&] { load_plan(dir / "p.toml"); });
  };
  EXPECT_NE(complaint("attention_tp = 0").find("attention_tp"), std::string::npos);
  EXPECT_NE(complaint("atention_tp = 2").find("did you mean 'attention_tp'?"), std::string::npos);
  EXPECT_NE(complaint("attention_tp = \"2\"").find("attention_tp"), std::string::npos);
  EXPECT_NE(complaint("attention_tp = 99999999999").find("attention_tp"), std::string::npos);
}

}  // namespace
}  // namespace moge::sim
