#include "sim/step.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "machines.h"
#include "refusal.h"
#include "sim/plan_search.h"

namespace moge::sim {
namespace {

const Precision kW8A8{WeightFormat::kW8A8, KvFormat::k16};

/// A machine whose constants are ideal: no fixed times, no losses.
Device ideal(const std::string& name) {
  Calibration c = shipped_calibration(name);
  for (const ConstantField& field : constant_fields()) {
    const std::string key = field.name;
    (c.*field.member).value = key.ends_with("efficiency") ? 1 : 0;
  }
  spec::Hardware hardware = shipped_hardware(name);
  hardware.matmul.reset();
  return make_device(hardware, c);
}

spec::ParallelPlan tensor_parallel(int64_t n, bool moe) {
  return {.attention_tp = n, .expert_ep = moe ? n : 1, .shared_tp = n};
}

TEST(Step, GrowsWithBatchAndContext) {
  const Device a2 = shipped_device("ascend-800i-a2");
  for (const char* name : {"dense-32b", "pangu-pro-moe-72b-a16b"}) {
    const spec::ModelConfig model = shipped_model(name);
    const StepModel step(model, a2, kW8A8, tensor_parallel(4, model.is_moe()));
    double last = 0;
    for (double batch = 1; batch < 1000; batch *= 1.5) {
      const double seconds = step.seconds(decode_load(std::floor(batch), 2048));
      EXPECT_GE(seconds, last) << name << " " << batch;
      last = seconds;
    }
    EXPECT_LT(step.seconds(decode_load(64, 1024)), step.seconds(decode_load(64, 4096)));
    EXPECT_LT(step.seconds(decode_load(64, 1024)), step.seconds(decode_load(64, 1024, 1)));
    EXPECT_LT(step.seconds(prefill_load(1, 2048)), step.seconds(prefill_load(2, 2048)));
    EXPECT_LT(2 * step.seconds(prefill_load(1, 2048)), step.seconds(prefill_load(1, 8192)));
  }
}

TEST(Step, FasterMemoryAndLinksAreNeverSlower) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  spec::Hardware hardware = shipped_hardware("ascend-800i-a2");
  const Calibration c = shipped_calibration("ascend-800i-a2");
  const auto seconds = [&](const StepLoad& load) {
    return StepModel(model, make_device(hardware, c), kW8A8, tensor_parallel(4, true)).seconds(load);
  };
  const double decode = seconds(decode_load(128, 2048));
  const double prefill = seconds(prefill_load(2, 2048));
  hardware.memory_bandwidth.value *= 2;
  EXPECT_LT(seconds(decode_load(128, 2048)), decode);
  hardware.interconnect[0].bandwidth.value *= 2;
  EXPECT_LT(seconds(prefill_load(2, 2048)), prefill);
}

TEST(Step, OneDeviceDoesNotCommunicate) {
  const spec::ModelConfig model = shipped_model("qwen3-30b-a3b");
  const StepModel step(model, shipped_device("h100-sxm"), kW8A8, {});
  const StepBreakdown b = step.explain(decode_load(8, 1024));
  EXPECT_EQ(b.bound_seconds[static_cast<int>(Bound::kNetwork)], 0);
  for (const OpRow& row : b.ops)
    EXPECT_TRUE(row.op != Op::kAttentionReduce && row.op != Op::kMlpReduce && row.op != Op::kLogitsGather);
}

TEST(Step, BreakdownAddsUp) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  const StepModel step(model, shipped_device("ascend-800i-a2"), kW8A8, tensor_parallel(4, true));
  for (const StepLoad& load : {decode_load(1, 2048), decode_load(300, 2048, 2), prefill_load(2, 2048)}) {
    const StepBreakdown b = step.explain(load);
    double ops = 0;
    for (const OpRow& row : b.ops) ops += row.seconds;
    double bounds = 0;
    for (const double s : b.bound_seconds) bounds += s;
    EXPECT_NEAR(ops, step.seconds(load), 1e-12 * ops);
    EXPECT_NEAR(bounds, ops, 1e-12 * ops);
  }
}

/// With no losses a dense model's batch-1 step reads its weights and cache once: spec's roof.
TEST(Step, DecodeMeetsTheMemoryRoof) {
  const spec::ModelConfig model = shipped_model("dense-32b");
  const Device device = ideal("h200-sxm");
  const double seconds = StepModel(model, device, {}, {}).seconds(decode_load(1, 2048));
  const double roof = static_cast<double>(spec::decode_read_bytes(model, 2048, DType::kBF16, DType::kBF16)) /
                      device.memory_bandwidth;
  EXPECT_GE(seconds, roof * (1 - 1e-3));
  EXPECT_LE(seconds, roof * 1.01);  // and some activations
}

/// At a huge batch and no context only FLOPs count, and they are spec's.
TEST(Step, HugeBatchMeetsTheComputeRoof) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  Device device = ideal("h200-sxm");
  device.memory_bandwidth *= 1e3;
  device.kv_bandwidth *= 1e3;
  const double batch = 1e6;
  const spec::FlopCount flops = spec::flop_count(model, 1, spec::Phase::kDecode);
  const double matmuls = flops.total() - flops.attention_core;
  const double seconds = StepModel(model, device, {}, {}).seconds(decode_load(batch, 1));
  EXPECT_NEAR(seconds, batch * matmuls / device.dense_flops, 0.01 * seconds);
}

TEST(Step, PrefillCountsSpecsFlops) {
  const spec::ModelConfig model = shipped_model("dense-32b");
  const StepBreakdown b = StepModel(model, shipped_device("h200-sxm"), {}, {}).explain(prefill_load(1, 2048));
  double flops = 0;
  for (const OpRow& row : b.ops) flops += row.op == Op::kLmHead ? 0 : row.flops;
  const spec::FlopCount expected = spec::flop_count(model, 2049, spec::Phase::kPrefill);
  EXPECT_NEAR(flops, 2048 * (expected.total() - expected.lm_head), 1e-6 * flops);
}

TEST(Step, MemoryIsSpecsMemory) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  const StepModel step(model, shipped_device("ascend-800i-a2"), {}, tensor_parallel(4, true));
  const DeviceMemory m = step.memory(100, 2048, 100);
  EXPECT_NEAR(4 * m.weights, static_cast<double>(spec::weight_bytes(model, DType::kBF16)),
              0.005 * 4 * m.weights);
  EXPECT_DOUBLE_EQ(4 * m.kv_cache,
                   100.0 * 2048 * static_cast<double>(spec::kv_bytes_per_token(model, DType::kF16)));
}

TEST(Step, MoGEHasNoStragglersAndTopKHas) {
  spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  const Device a2 = shipped_device("ascend-800i-a2");
  const spec::ParallelPlan plan{.attention_tp = 8, .expert_ep = 8, .shared_tp = 8};
  const double moge = StepModel(model, a2, kW8A8, plan).seconds(prefill_load(1, 2048));
  model.num_expert_groups = 1;
  const double topk = StepModel(model, a2, kW8A8, plan).seconds(prefill_load(1, 2048));
  const double skewed = StepModel(model, a2, kW8A8, plan, 0.5).seconds(prefill_load(1, 2048));
  EXPECT_GT(topk, moge);
  EXPECT_GT(skewed, 1.05 * topk);
}

TEST(Step, NarrowFormatsCostLess) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  const Device a2 = shipped_device("ascend-800i-a2");
  const auto seconds = [&](Precision p) {
    return StepModel(model, a2, p, tensor_parallel(4, true)).seconds(decode_load(128, 4096));
  };
  EXPECT_LT(seconds({WeightFormat::kW8A8, KvFormat::k16}), seconds({WeightFormat::k16, KvFormat::k16}));
  EXPECT_LT(seconds({WeightFormat::kW4A8, KvFormat::k16}), seconds({WeightFormat::kW8A8, KvFormat::k16}));
  EXPECT_LT(seconds({WeightFormat::kW8A8, KvFormat::k8}), seconds({WeightFormat::kW8A8, KvFormat::k16}));
  EXPECT_LT(seconds({WeightFormat::kW8A8, KvFormat::k4}), seconds({WeightFormat::kW8A8, KvFormat::k8}));
}

TEST(Step, OverlapHidesCommunicationOfScatteringPlans) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  const spec::Hardware hardware = shipped_hardware("ascend-800i-a2");
  Calibration c = shipped_calibration("ascend-800i-a2");
  spec::ParallelPlan plan = tensor_parallel(4, true);
  plan.reduce_scatter = true;
  const double apart = StepModel(model, make_device(hardware, c), kW8A8, plan).seconds(prefill_load(2, 2048));
  c.overlap.value = 1;
  const double fused = StepModel(model, make_device(hardware, c), kW8A8, plan).seconds(prefill_load(2, 2048));
  EXPECT_LT(fused, apart);
  EXPECT_GT(fused, 0.5 * apart);
}

TEST(Step, MeasuredOperatorsReplaceTheFormula) {
  const spec::ModelConfig model = shipped_model("dense-32b");
  const Device h200 = shipped_device("h200-sxm");
  OpTable table;
  constexpr double kSlow = 10e-3;
  table.add("matmul", "bf16", {2 * 27648, 5120}, 1, kSlow);
  table.add("matmul", "bf16", {2 * 27648, 5120}, 64, kSlow);
  const double formula = StepModel(model, h200, {}, {}).seconds(decode_load(16, 128));
  const StepBreakdown b = StepModel(model, h200, {}, {}, 0, &table).explain(decode_load(16, 128));
  EXPECT_GT(b.seconds, formula);
  for (const OpRow& row : b.ops) {
    if (row.op == Op::kGateUp) {
      EXPECT_NEAR(row.seconds, 64 * kSlow, 1e-9);
    }
  }
}

TEST(Step, OneTokensLayerMayBeOneMeasuredKernel) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  const Precision i8{WeightFormat::kW8A8, KvFormat::k16};
  OpTable table;
  constexpr double kSeconds = 90e-6;
  table.add("token_layer", "i8", {5120, 5120, 7168, 1344, 64, 8, 8, 4}, 1, kSeconds);
  const StepModel step(model, shipped_device("h200-sxm"), i8, {}, 0, &table);
  double in_one = 0, in_two = 0;
  for (const OpRow& row : step.explain(decode_load(1, 2048)).ops) {
    EXPECT_TRUE(row.op != Op::kQkv && row.op != Op::kMlpNorm && row.op != Op::kExpertDown) << name_of(row.op);
    if (row.op == Op::kTokenLayer) in_one = row.seconds;
  }
  for (const OpRow& row : step.explain(decode_load(2, 2048)).ops)
    if (row.op == Op::kTokenLayer) in_two = row.seconds;
  EXPECT_NEAR(in_one, 48 * kSeconds, 1e-9);
  EXPECT_EQ(in_two, 0) << "for more than one token there is no such kernel";
}

/// Our engine runs the shared experts as one dense MLP beside the routed ones.
TEST(Step, MeasuredProductsOfRoutedAndSharedExperts) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  OpTable table;
  constexpr double kSeconds = 1e-3;
  for (const double rows : {1, 1024}) {
    table.add("grouped_matmul", "bf16", {2 * 1344, 5120, 64}, rows, kSeconds);
    table.add("grouped_matmul", "bf16", {5120, 1344, 64}, rows, kSeconds);
    table.add("matmul", "bf16", {2 * 5376, 5120}, rows, 2 * kSeconds);
    table.add("matmul", "bf16", {5120, 5376}, rows, 3 * kSeconds);
    table.add("attention", "bf16", {40, 8, 128}, rows, kSeconds, 2048);
  }
  const StepBreakdown b =
      StepModel(model, shipped_device("h200-sxm"), {}, {}, 0, &table).explain(decode_load(1, 2048));
  int found = 0;
  for (const OpRow& row : b.ops) {
    double expected = 0;
    if (row.op == Op::kExpertGateUp || row.op == Op::kExpertDown)
      expected = kSeconds * 8 / 64;  // of those that were measured a token meets 8
    if (row.op == Op::kSharedGateUp) expected = 2 * kSeconds;
    if (row.op == Op::kSharedDown) expected = 3 * kSeconds;
    if (row.op == Op::kAttention) expected = kSeconds;
    if (expected == 0) continue;
    EXPECT_NEAR(row.seconds, 48 * expected, 1e-12) << name_of(row.op);
    ++found;
  }
  EXPECT_EQ(found, 5);
}

/// What the shared experts' products add to the routed ones, under whose end they begin, where that was
/// measured; in other machines' plans and with a skew they follow.
TEST(Step, MeasuredSharedExpertsBesideRoutedOnes) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  const Device h200 = shipped_device("h200-sxm");
  OpTable table;
  for (const double tokens : {1, 1024}) {
    table.add("matmul", "bf16", {2 * 5376, 5120}, tokens, 3e-3);
    table.add("matmul_beside_routed", "bf16", {2 * 5376, 5120, 64, 8, 8}, tokens, 2e-3);
  }
  const auto shared = [&](const spec::ParallelPlan& plan, double skew) {
    for (const OpRow& row : StepModel(model, h200, {}, plan, skew, &table).explain(decode_load(16, 2048)).ops)
      if (row.op == Op::kSharedGateUp) return row.seconds / 48;
    return 0.0;
  };
  EXPECT_NEAR(shared({}, 0), 3e-3, 1e-12) << "no routed products are known";
  for (const double tokens : {1, 1024})
    table.add("routed_matmul", "bf16", {2 * 1344, 5120, 64, 8, 8}, tokens, 5e-3);
  EXPECT_NEAR(shared({}, 0), 2e-3, 1e-12);
  EXPECT_NEAR(shared({}, 1), 3e-3, 1e-12);
  EXPECT_NEAR(shared({.attention_dp = 2, .expert_ep = 2}, 0), 3e-3, 1e-12);
}

/// What a pass begins with was measured for decoding rows and for prompts apart.
TEST(Step, MeasuredInputs) {
  OpTable table;
  table.add("step_inputs", "bf16", {5120, 128}, 64, 1e-3);
  table.add("prompt_inputs", "bf16", {5120, 128}, 64, 2e-3);
  const StepModel step(shipped_model("pangu-pro-moe-72b-a16b"), shipped_device("h200-sxm"), kW8A8, {}, 0,
                       &table);
  EXPECT_NEAR(step.explain(decode_load(64, 2048)).ops[0].seconds, 1e-3, 1e-12);
  EXPECT_NEAR(step.explain(prefill_load(1, 64)).ops[0].seconds, 2e-3, 1e-12);
}

/// A skew takes the table's equal rows for the products; what lies between them is of the same engine then.
TEST(Step, MeasuredQuantisationGoesWithMeasuredProducts) {
  OpTable table;
  for (const double rows : {1, 1024}) {
    table.add("grouped_matmul", "i8", {2 * 1344, 5120, 64}, rows, 1e-3);
    table.add("quantize_rows", "i8", {1344}, rows, 2e-3);
  }
  const StepModel step(shipped_model("pangu-pro-moe-72b-a16b"), shipped_device("h200-sxm"), kW8A8, {}, 1,
                       &table);
  double quantised = 0;
  for (const OpRow& row : step.explain(decode_load(16, 2048)).ops) {
    EXPECT_NE(row.op, Op::kExpertSwiglu);
    if (row.op == Op::kExpertQuant) quantised = row.seconds;
  }
  EXPECT_NEAR(quantised, 48 * 2e-3, 1e-9);
}

TEST(Step, TokensPerStep) {
  EXPECT_EQ(tokens_per_step(0, 0.9), 1);
  EXPECT_DOUBLE_EQ(tokens_per_step(1, 0.7), 1.7);
  EXPECT_DOUBLE_EQ(tokens_per_step(3, 1), 4);
  EXPECT_DOUBLE_EQ(tokens_per_step(2, 0.5), 1.75);
}

TEST(Step, StaysFiniteAtTheExtremes) {
  const spec::ModelConfig model = shipped_model("pangu-pro-moe-72b-a16b");
  const PlanSearch search(model, shipped_device("ascend-800i-a2"), kW8A8, 8, PlanSpace::kAll);
  for (const StepModel& step : search.models()) {
    for (const StepLoad& load :
         {decode_load(1, 1), decode_load(1e9, 1e9, 16), prefill_load(1, 1), prefill_load(1e9, 1e9)}) {
      const double seconds = step.seconds(load);
      EXPECT_TRUE(std::isfinite(seconds) && seconds > 0) << step.plan().str();
    }
  }
}

TEST(Step, RefusesWhatDoesNotFit) {
  const spec::ModelConfig model = shipped_model("dense-32b");
  const Device a2 = shipped_device("ascend-800i-a2");
  EXPECT_THROW(StepModel(model, a2, kW8A8, {.attention_tp = 3, .shared_tp = 3}), UsageError);
  EXPECT_THROW(StepModel(model, a2, {WeightFormat::kFp8, KvFormat::k16}, {}), UsageError);
  EXPECT_THROW(StepModel(model, a2, kW8A8, {.replicas = 2}), UsageError);
  EXPECT_THROW(StepModel(model, shipped_device("epyc-zen5-2cpu"), {}, {.attention_tp = 2, .shared_tp = 2}),
               UsageError);
}

}  // namespace
}  // namespace moge::sim
