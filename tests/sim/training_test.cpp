#include "sim/training.h"

#include <gtest/gtest.h>

#include "machines.h"
#include "refusal.h"
#include "sim/plan_file.h"
#include "spec/cost.h"

namespace moge::sim {
namespace {

using test::refusal;

double sum(const TrainingEstimate& e) {
  return e.matmul_s + e.attention_s + e.vector_s + e.head_s + e.recompute_s + e.straggler_s + e.tp_s +
         e.ep_s + e.cp_s + e.pp_s + e.bubble_s + e.dp_s + e.optimizer_s;
}

const spec::ModelConfig& pangu() {
  static const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  return model;
}
spec::ParallelPlan report_plan() {
  return load_plan(kConfigs + "plans/report-training.toml");
}
spec::ParallelPlan baseline() {
  return load_plan(kConfigs + "plans/report-training-baseline.toml");
}

TEST(Training, PartsAddUpAndMfuIsSpecs) {
  const Device device = shipped_device("ascend-800t-a2");
  const TrainingLoad load;
  for (const spec::ParallelPlan& plan : {report_plan(), baseline()}) {
    const TrainingEstimate e = estimate_training(pangu(), device, plan, load);
    EXPECT_NEAR(sum(e), e.step_s, 1e-9 * e.step_s);
    const double flops = static_cast<double>(load.global_batch_tokens) *
                         spec::flops_per_token(pangu(), load.sequence, spec::Phase::kTraining);
    EXPECT_NEAR(e.mfu, flops / (e.step_s * static_cast<double>(plan.devices()) * 256e12), 1e-12);
    EXPECT_GT(e.mfu, 0.1);
    EXPECT_LT(e.mfu, 0.65);
    EXPECT_EQ(e.straggler_s, 0);
  }
}

TEST(Training, BubbleOfInterleavedStages) {
  const Device device = shipped_device("ascend-800t-a2");
  const TrainingEstimate e = estimate_training(pangu(), device, report_plan(), {});
  EXPECT_EQ(e.micro_batches, 512);  // 4 M tokens, 4096 a sequence, two data-parallel copies
  EXPECT_DOUBLE_EQ(e.bubble, 4.0 / (5 * 512));
  EXPECT_EQ(e.padded_layers, 2);  // 48 layers in 50 slots, as in the report
  EXPECT_EQ(e.head_s, 0);         // the last stage's free slots take the lm_head
  const TrainingEstimate b = estimate_training(pangu(), device, baseline(), {});
  EXPECT_EQ(b.padded_layers, 0);
  EXPECT_GT(b.head_s, 0);
}

TEST(Training, PlansWithoutAFactorDontPayForIt) {
  const Device device = shipped_device("ascend-800t-a2");
  const TrainingEstimate e = estimate_training(pangu(), device, report_plan(), {});
  const TrainingEstimate b = estimate_training(pangu(), device, baseline(), {});
  EXPECT_EQ(e.cp_s, 0);
  EXPECT_GT(e.tp_s, 0);
  EXPECT_EQ(b.tp_s, 0);
  const spec::ModelConfig dense = shipped_model("dense-500m");
  const TrainingEstimate one = estimate_training(dense, shipped_device("h100-sxm"), {}, {});
  EXPECT_EQ(one.tp_s + one.ep_s + one.cp_s + one.pp_s + one.bubble_s + one.dp_s, 0);
}

TEST(Training, OverlapRecomputeAndSkew) {
  const Device device = shipped_device("ascend-800t-a2");
  const double plain = estimate_training(pangu(), device, report_plan(), {}).step_s;
  EXPECT_LT(estimate_training(pangu(), device, report_plan(), {.overlap = 0.8}).step_s, plain);
  const TrainingEstimate full =
      estimate_training(pangu(), device, report_plan(), {.recompute = Recompute::kFull});
  EXPECT_GT(full.step_s, plain);
  EXPECT_LT(full.activation_bytes, estimate_training(pangu(), device, report_plan(), {}).activation_bytes);
  spec::ModelConfig topk = pangu();
  topk.num_expert_groups = 1;
  EXPECT_GT(estimate_training(topk, device, baseline(), {.skew = 0.5}).straggler_s, 0);
}

TEST(Training, MoreReplicasOfTheSameStepAreFaster) {
  const Device device = shipped_device("ascend-800t-a2");
  spec::ParallelPlan plan = report_plan();
  const TrainingEstimate one = estimate_training(pangu(), device, plan, {});
  plan.replicas = 8;
  const TrainingEstimate eight = estimate_training(pangu(), device, plan, {});
  EXPECT_LT(eight.step_s, one.step_s / 6);
  EXPECT_LT(eight.mfu, one.mfu);  // fewer microbatches: more bubble
  EXPECT_LT(eight.optimizer_bytes, one.optimizer_bytes);
}

TEST(Training, RefusesWhatCannotBe) {
  const Device device = shipped_device("ascend-800t-a2");
  const auto complaint = [&](const spec::ParallelPlan& plan, const TrainingLoad& load) {
    return refusal<UsageError>([&] { estimate_training(pangu(), device, plan, load); });
  };
  EXPECT_NE(complaint(report_plan(), {.sequence = 0}).find("positive"), std::string::npos);
  EXPECT_NE(complaint(report_plan(), {.global_batch_tokens = 4096}).find("less than one microbatch"),
            std::string::npos);
  EXPECT_NE(complaint(baseline(), {.sequence = 4097}).find("context_parallel"), std::string::npos);
  EXPECT_NE(complaint(report_plan(), {.overlap = 2}).find("from 0 to 1"), std::string::npos);
  EXPECT_NE(complaint({.pipeline = 10, .pipeline_chunks = 10}, {}).find("for 48 layers"), std::string::npos);
  EXPECT_NE(
      complaint({.pipeline = 1 << 20, .attention_dp = 1 << 20, .replicas = 1 << 20}, {}).find("devices"),
      std::string::npos);
}

}  // namespace
}  // namespace moge::sim
