#include "sim/serving.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "refusal.h"
#include "sim/serving_summary.h"

namespace moge::sim {
namespace {

using testing::HasSubstr;

const StepTime kOneSecond = [](const ServingStep&) { return 1.0; };

SchedulerPolicy roomy() {
  SchedulerPolicy policy;
  policy.cache_tokens = 1 << 20;
  return policy;
}

TEST(Serving, OneRequestByHand) {
  // A prompt of 10 in chunks of 4, 4, 2; then two more tokens.
  SchedulerPolicy policy = roomy();
  policy.max_step_tokens = 4;
  std::vector<ServingStep> steps;
  const ServingRun run =
      simulate_serving(std::vector<Request>{{5.0, 10, 3}}, policy, [&](const ServingStep& s) {
        steps.push_back(s);
        return 0.5;
      });
  ASSERT_EQ(steps.size(), 5U);
  EXPECT_EQ(steps[0].prefill_tokens, 4);
  EXPECT_EQ(steps[0].prefill_positions, 1 + 2 + 3 + 4);
  EXPECT_EQ(steps[0].prefill_ends, 0);
  EXPECT_EQ(steps[2].prefill_tokens, 2);
  EXPECT_EQ(steps[2].prefill_positions, 9 + 10);
  EXPECT_EQ(steps[2].prefill_ends, 1);
  EXPECT_EQ(steps[3].decode_requests, 1);
  EXPECT_EQ(steps[3].decode_positions, 11);
  EXPECT_EQ(steps[3].prefill_tokens, 0);
  EXPECT_EQ(steps[4].decode_positions, 12);
  EXPECT_EQ(run.served[0].first_token_s, 6.5);
  EXPECT_EQ(run.served[0].finish_s, 7.5);
  EXPECT_EQ(run.computed_tokens, 12);
  EXPECT_EQ(run.busy_s, 2.5);
  const ServingSummary s = summarize(std::vector<Request>{{5.0, 10, 3}}, run);
  EXPECT_EQ(s.ttft_ms.max(), 1500);
  EXPECT_EQ(s.tpot_ms.max(), 500);
  EXPECT_EQ(s.e2e_ms.max(), 2500);
}

TEST(Serving, DecodingGoesBeforePrompts) {
  // The second prompt gets what the budget of 4 leaves beside the first request's token.
  SchedulerPolicy policy = roomy();
  policy.max_step_tokens = 4;
  std::vector<ServingStep> steps;
  simulate_serving(std::vector<Request>{{0, 4, 4}, {0.5, 5, 1}}, policy, [&](const ServingStep& s) {
    steps.push_back(s);
    return 1.0;
  });
  ASSERT_EQ(steps.size(), 4U);
  EXPECT_EQ(steps[1].decode_requests, 1);
  EXPECT_EQ(steps[1].prefill_tokens, 3);
  EXPECT_EQ(steps[2].prefill_tokens, 2);
  EXPECT_EQ(steps[2].prefill_ends, 1);
  EXPECT_EQ(steps[3].prefill_tokens, 0);
}

TEST(Serving, WaitsLikeAQueueOfOneServer) {
  // Poisson arrivals, one request at a time, 4 steps of 0.2 s each: the wait of M/D/1 is rho S / (2 (1 -
  // rho)).
  SyntheticTrace setup;
  setup.requests = 200'000;
  setup.requests_per_s = 0.75;  // rho = 0.6
  setup.input = {100, 0};
  setup.output = {4, 0};
  SchedulerPolicy policy = roomy();
  policy.max_running = 1;
  const std::vector<Request> trace = make_trace(setup);
  const ServingRun run = simulate_serving(trace, policy, [](const ServingStep&) { return 0.2; });
  const ServingSummary s = summarize(trace, run);
  const double service = 0.8, rho = setup.requests_per_s * service;
  const double wait_ms = rho * service / (2 * (1 - rho)) * 1e3;
  EXPECT_NEAR(s.ttft_ms.mean() - 200, wait_ms, 0.03 * wait_ms);
  // Little's law for the waiting room.
  EXPECT_NEAR(run.mean_waiting, setup.requests_per_s * wait_ms * 1e-3, 0.03 * rho);
  EXPECT_NEAR(run.busy_s / run.end_s, rho, 0.01);
  EXPECT_NEAR(s.tpot_ms.quantile(0.5), 200, 1e-6);
  EXPECT_EQ(run.preemptions, 0);
  EXPECT_LE(run.timeline.size(), kMaxTimeline);
  EXPECT_GT(run.timeline.size(), kMaxTimeline / 4);
}

TEST(Serving, PreemptsTheLastAndComputesItAnew) {
  // Five blocks of 4. Both prompts fill two; both want a third at once: the later one gives way.
  SchedulerPolicy policy;
  policy.block_tokens = 4;
  policy.cache_tokens = 20;
  const std::vector<Request> trace{{0, 8, 6}, {0, 8, 6}};
  const ServingRun run = simulate_serving(trace, policy, kOneSecond);
  EXPECT_EQ(run.preemptions, 1);
  EXPECT_EQ(run.served[0].finish_s, 6);       // as if alone
  EXPECT_EQ(run.served[1].first_token_s, 1);  // kept from before
  EXPECT_GT(run.served[1].finish_s, 6);
  // 13 tokens for the first; 8 for the second before it gave way, then all of its 13.
  EXPECT_EQ(run.computed_tokens, 13 + 8 + 13);
}

TEST(Serving, KeepsItsPromisesOnRandomTraces) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SyntheticTrace setup{300, 20, 0.5, {60, 1}, {30, 1}, seed};
    const std::vector<Request> trace = make_trace(setup);
    int64_t longest = 0, tokens = 0;
    for (const Request& r : trace) {
      longest = std::max(longest, r.input_tokens + r.output_tokens);
      tokens += r.input_tokens + r.output_tokens - 1;
    }
    SchedulerPolicy policy;
    policy.cache_tokens = longest + 64 + 100 * static_cast<int64_t>(seed % 4);
    policy.max_step_tokens = 16 + 40 * static_cast<int64_t>(seed % 3);
    policy.max_running = 1 + static_cast<int64_t>(seed % 17);
    policy.draft_tokens = static_cast<int64_t>(seed % 3);
    policy.acceptance = 0.7;
    const ServingRun run = simulate_serving(trace, policy, [&](const ServingStep& s) {
      EXPECT_GT(s.decode_requests + s.prefill_tokens, 0);
      EXPECT_LE(s.decode_requests + s.prefill_tokens, policy.max_step_tokens);
      EXPECT_LE(s.decode_requests + s.prefill_ends, policy.max_running);
      return 0.01 + 1e-4 * static_cast<double>(s.prefill_tokens);
    });
    for (size_t i = 0; i < trace.size(); ++i) {
      EXPECT_GT(run.served[i].first_token_s, trace[i].arrival_s);
      EXPECT_GE(run.served[i].finish_s, run.served[i].first_token_s);
      EXPECT_LE(run.served[i].finish_s, run.end_s);
    }
    if (run.preemptions == 0)
      EXPECT_EQ(run.computed_tokens, tokens);
    else
      EXPECT_GT(run.computed_tokens, tokens);
    for (const TimelinePoint& p : run.timeline) {
      EXPECT_GE(p.used_blocks, 0);
      EXPECT_LE(p.used_blocks, policy.cache_tokens / policy.block_tokens);
    }
  }
}

TEST(Serving, DraftsThatAreAlwaysRightDivideTheSteps) {
  SchedulerPolicy policy = roomy();
  policy.draft_tokens = 3;
  policy.acceptance = 1;
  const std::vector<Request> trace{{0, 10, 41}};
  EXPECT_EQ(simulate_serving(trace, policy, kOneSecond).steps, 1 + 10);
  policy.acceptance = 0;
  EXPECT_EQ(simulate_serving(trace, policy, kOneSecond).steps, 1 + 40);
  // In the mean 1 + p + p^2 + p^3 tokens a step.
  policy.acceptance = 0.5;
  const std::vector<Request> longer{{0, 10, 100'001}};
  const double tokens = 1e5 / static_cast<double>(simulate_serving(longer, policy, kOneSecond).steps - 1);
  EXPECT_NEAR(tokens, 1.875, 0.02);
}

TEST(Serving, ReplicasShareTheRequests) {
  SyntheticTrace setup{4000, 40, 1, {100, 0.5}, {20, 0.5}};
  const std::vector<Request> trace = make_trace(setup);
  const StepTime step = [](const ServingStep& s) {
    return 0.02 + 1e-5 * static_cast<double>(s.prefill_tokens + s.decode_requests);
  };
  SchedulerPolicy policy = roomy();
  policy.max_running = 8;
  ThreadPool one(1), two(2);
  const ServingRun a = simulate_replicas(trace, policy, step, 3, one),
                   b = simulate_replicas(trace, policy, step, 3, two);
  for (size_t i = 0; i < trace.size(); ++i) ASSERT_EQ(a.served[i].finish_s, b.served[i].finish_s);
  std::vector<Request> share;
  for (size_t i = 1; i < trace.size(); i += 3) share.push_back(trace[i]);
  const ServingRun alone = simulate_serving(share, policy, step);
  for (size_t i = 0; i < share.size(); ++i) ASSERT_EQ(a.served[3 * i + 1].finish_s, alone.served[i].finish_s);

  Objective objective{.ttft_ms = 200, .tpot_ms = 30};
  const ReplicaSearch search = find_replicas(trace, policy, step, objective, two);
  ASSERT_GE(search.replicas, 2);
  const auto met = [&](int64_t n) {
    return objective.met_by(summarize(trace, simulate_replicas(trace, policy, step, n, one)));
  };
  EXPECT_TRUE(met(search.replicas));
  EXPECT_FALSE(met(search.replicas - 1));
  const ServingRun run = simulate_replicas(trace, policy, step, search.replicas, one);
  EXPECT_GE(share_within(objective, trace, run), 0.98);
  objective.tpot_ms = 10;  // less than one step
  EXPECT_EQ(find_replicas(std::span(trace).first(50), policy, step, objective, two).replicas, 0);
  EXPECT_EQ(objective.str(), "TTFT <= 200 ms and TPOT <= 10 ms for 99%");
}

TEST(Serving, RefusesWhatCannotRun) {
  const auto refusal = [](const std::vector<Request>& trace, const SchedulerPolicy& policy) {
    return test::refusal<UsageError>([&] { simulate_serving(trace, policy, kOneSecond); });
  };
  SchedulerPolicy policy;
  policy.cache_tokens = 100;  // six whole blocks: 96
  EXPECT_THAT(refusal({}, policy), HasSubstr("no requests"));
  EXPECT_THAT(
      refusal({{0, 5, 5}, {0, 90, 10}}, policy),
      HasSubstr(
          "request 1 (90 tokens in, 10 out) can never run: it needs 99 cached tokens, 3 more than the 96"));
  EXPECT_EQ(refusal({{0, 90, 7}}, policy), "(accepted)");
  policy.max_running = 0;
  EXPECT_THAT(refusal({{0, 1, 1}}, policy), HasSubstr("running requests"));
  policy = {};
  EXPECT_THAT(refusal({{0, 1, 1}}, policy), HasSubstr("the cache holds 0 tokens"));
  policy.cache_tokens = 100;
  policy.acceptance = NAN;
  EXPECT_THAT(refusal({{0, 1, 1}}, policy), HasSubstr("acceptance"));
}

TEST(Sample, Quantiles) {
  EXPECT_EQ(Sample().quantile(0.5), 0);
  const Sample s({3, 1, 2, 4});
  EXPECT_EQ(s.quantile(0.5), 2);
  EXPECT_EQ(s.quantile(0.51), 3);
  EXPECT_EQ(s.quantile(0), 1);
  EXPECT_EQ(s.quantile(1), 4);
  EXPECT_EQ(s.mean(), 2.5);
}

}  // namespace
}  // namespace moge::sim
