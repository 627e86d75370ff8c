#include "spec/parallel_plan.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "refusal.h"

namespace moge::spec {
namespace {

ModelConfig shipped(const std::string& name) {
  return load_model_config(MOGE_SOURCE_DIR "/configs/models/" + name);
}

void expect_refused(const ParallelPlan& plan, const ModelConfig& config, const std::string& part) {
  test::expect_refused<UsageError>([&] { plan.validate(config); }, part);
}

TEST(ParallelPlan, AcceptsTheReportsPlan) {
  const ParallelPlan h2p{
      .attention_dp = 2, .attention_tp = 4, .expert_ep = 4, .expert_tp = 2, .shared_tp = 8};
  EXPECT_NO_THROW(h2p.validate(shipped("pangu-pro-moe-72b-a16b")));
  EXPECT_EQ(h2p.devices(), 8);
  EXPECT_EQ(h2p.str(), "PP1, attention DP2 x TP4, experts EP4 x TP2, shared TP8");
  EXPECT_NO_THROW((ParallelPlan{.attention_tp = 8, .shared_tp = 8}.validate(shipped("dense-72b"))));
  EXPECT_NO_THROW(ParallelPlan{}.validate(shipped("demo-moge")));
}

TEST(ParallelPlan, RefusesUnevenSplits) {
  const ModelConfig pangu = shipped("pangu-pro-moe-72b-a16b");
  expect_refused({.attention_tp = 0}, pangu, "expected degrees from 1");
  expect_refused({.pipeline = 49}, pangu, "49 pipeline stages for 48 layers");
  expect_refused({.attention_tp = 3, .expert_tp = 3}, pangu, "num_attention_heads 40 is not divisible");
  expect_refused({.attention_tp = 8, .expert_ep = 4}, pangu, "split over 4 devices, attention over 8");
  expect_refused({.attention_dp = 16, .expert_ep = 16}, pangu,
                 "num_expert_groups 8 is not divisible by expert_ep 16");
  expect_refused({.attention_dp = 5, .expert_tp = 5}, pangu, "moe_intermediate_size 1344 is not divisible");
  expect_refused({.attention_dp = 2, .expert_ep = 2}, shipped("dense-32b"), "no experts");
  EXPECT_NO_THROW((ParallelPlan{.attention_dp = 16, .expert_ep = 16}.validate(shipped("qwen3-30b-a3b"))));
}

TEST(ParallelPlan, TrainingDegrees) {
  const ModelConfig pangu = shipped("pangu-pro-moe-72b-a16b");
  const ParallelPlan baseline{
      .pipeline = 6, .expert_ep = 8, .pipeline_chunks = 4, .context_parallel = 8, .replicas = 3};
  EXPECT_NO_THROW(baseline.validate(pangu));
  EXPECT_EQ(baseline.devices_per_stage(), 8);
  EXPECT_EQ(baseline.devices(), 144);
  EXPECT_EQ(baseline.str(), "PP6, attention DP1 x TP1, experts EP8 x TP1, shared TP1, VPP4, CP8, DP3");
  expect_refused({.pipeline = 40, .attention_dp = 1 << 20, .expert_ep = 1 << 20, .replicas = 1 << 20}, pangu,
                 "devices");
}

}  // namespace
}  // namespace moge::spec
