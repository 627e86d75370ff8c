#include "sim/fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "refusal.h"
#include "sim/serving_report.h"
#include "sim/svg.h"

namespace moge::sim {
namespace {

using testing::HasSubstr;

const std::filesystem::path kConfigs = std::filesystem::path(MOGE_SOURCE_DIR) / "configs";

Device device() {
  return make_device(spec::load_hardware(kConfigs / "hardware/ascend-800i-a2.toml"),
                     load_calibration(kConfigs / "sim/ascend-800i-a2.toml"));
}

PlanSearch machine(int64_t cards) {
  return PlanSearch(spec::load_model_config(kConfigs / "models/pangu-pro-moe-72b-a16b"), device(),
                    {WeightFormat::kW8A8}, cards);
}

std::vector<Request> trace(double rate, int64_t requests = 200) {
  return make_trace({requests, rate, 1, {1000, 0.5}, {100, 0.5}});
}

TEST(Fleet, StepTimesAreTheStepModels) {
  const PlanSearch search = machine(4);
  const StepModel& model = search.models()[0];
  SchedulerPolicy policy;
  const StepTime plain = step_time_of(model, policy);
  EXPECT_EQ(plain({10, 10 * 2048, 0, 0, 0}), model.seconds(decode_load(10, 2048)));
  EXPECT_EQ(plain({0, 0, 1000, 1000 * 1001 / 2, 1}), model.seconds(prefill_load(1, 1000)));
  policy.draft_tokens = 2;
  EXPECT_EQ(step_time_of(model, policy)({10, 10 * 2048, 0, 0, 0}), model.seconds(decode_load(10, 2048, 2)));
  // A mixed step costs more than either part, less than both.
  const double both = plain({10, 10 * 2048, 1000, 500500, 1});
  EXPECT_GT(both, plain({10, 10 * 2048, 0, 0, 0}));
  EXPECT_LT(both, plain({10, 10 * 2048, 0, 0, 0}) + plain({0, 0, 1000, 500500, 1}));
}

TEST(Fleet, AFullBatchTakesTheStepModelsTime) {
  // 64 requests at once: when all prompts are in, they decode together, from 1000 to 2000 positions, but
  // for the 32 steps at each end in which the budget lets prompts in, or answers end, one after the other.
  const PlanSearch search = machine(4);
  const StepModel& model = search.models()[0];
  const SchedulerPolicy policy = *with_cache({}, model);
  const std::vector<Request> together(64, {0, 1000, 1000});
  const ServingRun run = simulate_serving(together, policy, step_time_of(model, policy));
  const Served& last = run.served.back();
  const double tpot = (last.finish_s - last.first_token_s) / 999;
  EXPECT_NEAR(tpot, model.seconds(decode_load(64, 1500)), 0.02 * tpot);
  EXPECT_NEAR(run.mean_decoding, 64, 64 * 32.0 / 1000);
}

TEST(Fleet, TheCacheIsWhatWeightsLeave) {
  const PlanSearch search = machine(8);
  SchedulerPolicy policy;
  for (const StepModel& model : search.models()) {
    const std::optional<SchedulerPolicy> full = with_cache(policy, model);
    if (!full) continue;
    const auto parts = full->cache_parts;
    EXPECT_EQ(parts, model.plan().attention_dp);
    const auto each = static_cast<double>(full->cache_tokens / parts);
    // That many tokens fit in every replica beside the largest step, one more does not.
    const auto total = [&](double tokens) {
      return model
                 .memory(static_cast<double>(policy.max_running), 0,
                         static_cast<double>(policy.max_step_tokens))
                 .total() +
             model.memory(static_cast<double>(parts), tokens, 1).kv_cache;
    };
    const double limit = model.memory(1, 1, 1).limit;
    EXPECT_LE(total(each), limit * (1 + 1e-12));
    EXPECT_GT(total(each + 1), limit * (1 - 1e-12));
  }
}

TEST(Fleet, MoreLoadNeedsMoreCards) {
  ThreadPool pool(1);
  const Objective objective{.ttft_ms = 1000, .tpot_ms = 40};
  int64_t last = 0;
  for (const double rate : {1.0, 10.0, 40.0}) {
    const std::vector<FleetTrial> trials = search_fleet(machine, 4, trace(rate), {}, objective, pool);
    ASSERT_EQ(trials.size(), 3U);
    EXPECT_THAT(trials[0].refusal, HasSubstr("no room for a cache"));  // 72 GB on one 64 GB card
    const FleetTrial* best = fewest_cards(trials);
    ASSERT_NE(best, nullptr);
    EXPECT_GE(best->total_cards(), last);
    last = best->total_cards();
  }
  EXPECT_GT(last, 4);
  const std::vector<FleetTrial> hopeless = search_fleet(machine, 4, trace(1, 20), {}, {.tpot_ms = 1.0}, pool);
  EXPECT_EQ(fewest_cards(hopeless), nullptr);
}

TEST(Fleet, RefusesARequestThatNoCacheHolds) {
  ThreadPool pool(1);
  const auto refused = test::refusal<UsageError>([&] {
    choose_plan(machine(4), std::vector<Request>{{0, 100'000'000, 2}}, {}, {}, 1, pool);
  });
  EXPECT_THAT(refused, HasSubstr("request 0 (100000000 tokens in, 2 out) can never run"));
}

TEST(ServingReport, IsComplete) {
  ThreadPool pool(1);
  const Objective objective{.ttft_ms = 500, .tpot_ms = 40};
  const std::vector<Request> requests = trace(5);
  const ServingChoice choice = choose_plan(machine(4), requests, {}, objective, 1, pool);
  const std::vector<FleetTrial> trials = search_fleet(machine, 4, requests, {}, objective, pool);
  const nlohmann::ordered_json quantiles = {{"mean", 1}, {"p50", 1234.6}, {"p90", 1}, {"p99", 1}, {"max", 1}};
  const nlohmann::ordered_json result = {{"model", "m"},
                                         {"hardware", "h"},
                                         {"total_cards", 4},
                                         {"machines", 1},
                                         {"requests", 200},
                                         {"input_tokens", 200'000},
                                         {"output_tokens", 20'000},
                                         {"plan", {{"text", "plan"}}},
                                         {"ttft_ms", quantiles},
                                         {"tpot_ms", quantiles},
                                         {"e2e_ms", quantiles},
                                         {"output_tokens_per_s", 1},
                                         {"output_tokens_per_s_per_card", 1},
                                         {"mean_waiting", 1},
                                         {"max_waiting", 1},
                                         {"utilization", 1},
                                         {"mean_decode_batch", 1},
                                         {"preemptions", 0}};
  const Report report = serving_report(result, requests, choice, objective, trials);
  EXPECT_EQ(report.facts[0].value, "1,235");
  EXPECT_EQ(report.charts.size(), 8U);
  EXPECT_EQ(report.tables[0].rows[0][2], "1,235");
  // Throughput over time adds up to all output tokens.
  for (const Chart& chart : report.charts) {
    if (chart.id != "throughput") continue;
    double tokens = 0, produced = 0;
    for (const double y : chart.series[0].y) tokens += y * (chart.series[0].x[1] - chart.series[0].x[0]);
    for (const Request& r : requests) produced += static_cast<double>(r.output_tokens);
    EXPECT_NEAR(tokens, produced, 1e-6 * produced);
  }
  const PageParts parts{"", "", ""};
  EXPECT_THAT(html_page(report, result, parts), HasSubstr("Cards for the objective"));
  EXPECT_THAT(svg(report.charts), testing::Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace moge::sim
