#include "sim/comparison.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "machines.h"
#include "refusal.h"
#include "sim/comparison_report.h"
#include "temp_dir.h"

namespace moge::sim {
namespace {

using test::refusal;

/// A run of two layers.
constexpr const char* kRun =
    R"({"benchmark": "decode", "device": "NVIDIA H200", "model": "m", "layers": 2, "weights": "i8",
  "kv_dtype": "i8", "batch": 4, "context": 100, "mean_context": 120, "step_ms": 9.0, "ops": [
  {"op": "quant_matmul", "call_ms": [1, 2, 3, 4, 1, 2, 3, 4, 5]},
  {"op": "residual_norm", "call_ms": [0.1, 0.2, 0.1, 0.2, 0.1]},
  {"op": "quantize_rows", "call_ms": [0.3, 0.4, 0.3, 0.4]},
  {"op": "rope_table", "call_ms": [0.01]}, {"op": "embedding_fwd", "call_ms": [0.02]}]})";

MeasuredRun load(const std::string& text) {
  const test::TempDir dir;
  std::ofstream(dir / "run.json") << text;
  return load_measured_run(dir / "run.json");
}

const ComparedOp& find(const Comparison& c, const std::string& name) {
  const auto it = std::ranges::find(c.ops, name, &ComparedOp::op);
  if (it == c.ops.end()) throw std::out_of_range(name);
  return *it;
}

TEST(Comparison, TellsTheCallsOfALayerApart) {
  const MeasuredRun run = load(kRun);
  EXPECT_EQ(run.context, 120);
  EXPECT_EQ(run.precision().weights, WeightFormat::kW8A8);
  EXPECT_EQ(run.precision().kv, KvFormat::k8);
  EXPECT_EQ(run.load().decode_requests, 4);
  const StepBreakdown spans{.seconds = 0.02,
                            .ops = {{.op = Op::kQkv, .seconds = 3e-3, .basis = Basis::kMeasured},
                                    {.op = Op::kExpertGateUp, .seconds = 6e-3, .basis = Basis::kMeasured},
                                    {.op = Op::kAttentionNorm, .seconds = 0.1e-3, .basis = Basis::kMeasured},
                                    {.op = Op::kCombine, .seconds = 0.2e-3, .basis = Basis::kInterpolated}}};
  const Comparison c = compare(run, 9.9e-3, spans);
  EXPECT_NEAR(c.error(), 0.1, 1e-9);
  EXPECT_NEAR(find(c, "qkv_proj").error(), 0.5, 1e-9);
  EXPECT_EQ(find(c, "qkv_proj").basis, Basis::kMeasured);
  EXPECT_NEAR(find(c, "gate_up_proj").measured_s, 6e-3, 1e-12);
  EXPECT_NEAR(find(c, "gate_up_proj").error(), 0, 1e-9);
  EXPECT_NEAR(find(c, "lm_head").measured_s, 5e-3, 1e-12);
  EXPECT_NEAR(find(c, "attention_norm").measured_s, 0.3e-3, 1e-12);
  EXPECT_NEAR(find(c, "attention_norm").error(), 0, 1e-9);
  EXPECT_EQ(find(c, "attention_norm").basis, Basis::kInterpolated);  // of the longer part
  EXPECT_NEAR(find(c, "mlp_quant").measured_s, 0.8e-3, 1e-12);
  EXPECT_NEAR(find(c, "step_inputs").measured_s, 0.03e-3, 1e-12);
  EXPECT_NEAR(c.mean_op_error(), 2.0 * 0.5 / (2 + 6 + 0.3), 1e-9);
  EXPECT_EQ(c.ops.front().op, "down_proj");
}

TEST(Comparison, HostOfAPrefillIsMeasuredOrWhatIsLeft) {
  std::string text = kRun;
  text.replace(text.find("decode"), 6, "prefill");
  text.replace(text.find("\"step_ms\": 9.0"), 14, "\"ttft_ms\": 30.0");
  const double ops = 25 + 0.7 + 1.4 + 0.03;
  EXPECT_NEAR(find(compare(load(text), 1e-3, {}), "host").measured_s, (30 - ops) * 1e-3, 1e-12);
  text.replace(text.find("\"ttft_ms\""), 0, "\"host_ms\": 0.5, ");
  EXPECT_NEAR(find(compare(load(text), 1e-3, {}), "host").measured_s, 0.5e-3, 1e-12);
}

TEST(Comparison, TellsSharedExpertsFromRoutedOnes) {
  std::string text = kRun;
  for (const auto& [from, to] :
       {std::pair{"[1, 2, 3, 4, 1, 2, 3, 4, 5]", "[1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 7]"},
        {"[0.3, 0.4, 0.3, 0.4]", "[0.3, 0.4, 0.5, 0.3, 0.4, 0.5]"}})
    text.replace(text.find(from), std::string_view(from).size(), to);
  const Comparison c = compare(load(text), 1e-3, {.ops = {{.op = Op::kSharedDown, .seconds = 12e-3}}});
  EXPECT_NEAR(find(c, "gate_up_proj").measured_s, 6e-3, 1e-12);
  EXPECT_NEAR(find(c, "shared_gate_up_proj").measured_s, 8e-3, 1e-12);
  EXPECT_NEAR(find(c, "down_proj").measured_s, 10e-3, 1e-12);
  EXPECT_NEAR(find(c, "shared_down_proj").error(), 0, 1e-9);
  EXPECT_NEAR(find(c, "lm_head").measured_s, 7e-3, 1e-12);
  EXPECT_NEAR(find(c, "attention_quant").measured_s, 0.6e-3, 1e-12);
  EXPECT_NEAR(find(c, "shared_quant").measured_s, 0.8e-3, 1e-12);
  EXPECT_NEAR(find(c, "mlp_quant").measured_s, 1e-3, 1e-12);
}

/// An engine with other calls in a layer is compared op by op, not by guesses.
TEST(Comparison, KeepsUnknownPatternsTogether) {
  std::string text = kRun;
  const std::string calls = "[1, 2, 3, 4, 1, 2, 3, 4, 5]";
  text.replace(text.find(calls), calls.size(), "[1, 2, 3]");
  const Comparison c = compare(load(text), 1e-3, {});
  EXPECT_NEAR(find(c, "quant_matmul").measured_s, 6e-3, 1e-12);
}

TEST(Comparison, RefusesBrokenFiles) {
  const auto complaint = [](const std::string& from, const std::string& to) {
    std::string text = kRun;
    text.replace(text.find(from), from.size(), to);
    return refusal([&] { load(text); });
  };
  EXPECT_NE(complaint("\"decode\"", "\"serve\"").find("decode or prefill"), std::string::npos);
  EXPECT_NE(complaint("9.0", "-9.0").find("step_ms"), std::string::npos);
  EXPECT_NE(complaint("\"layers\": 2", "\"layers\": 0").find("layers"), std::string::npos);
  EXPECT_NE(complaint("\"kv_dtype\": \"i8\"", "\"kv_dtype\": \"i3\"").find("i3"), std::string::npos);
  EXPECT_NE(complaint("[0.01]", "[\"x\"]").find("call_ms"), std::string::npos);
  EXPECT_NE(complaint("\"mean_context\"", "\"mean\"").find("mean_context"), std::string::npos);
}

TEST(ComparisonReport, HasEveryOperator) {
  const auto result = nlohmann::ordered_json::parse(R"({"hardware": "h", "runs": [{
    "run": "decode 1 x 2", "measured_ms": 2, "predicted_ms": 1.9, "error": -0.05, "mean_op_error": 0.1, "ops": [
      {"op": "a", "measured_ms": 1.5, "predicted_ms": 1.6, "error": 0.0667, "basis": "measured"},
      {"op": "b", "measured_ms": 0.5, "predicted_ms": 0, "error": null, "basis": ""}]}]})");
  const Report report = comparison_report(result);
  using Row = std::vector<std::string>;
  EXPECT_EQ(report.tables[0].rows[0], (Row{"decode 1 x 2", "2.000", "1.900", "-5.0%", "10.0%"}));
  EXPECT_EQ(report.tables[1].rows[1], (Row{"decode 1 x 2", "b", "0.500", "0.000", "", ""}));
  EXPECT_EQ(report.charts[0].y.categories, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(report.charts[0].series[1].x, (std::vector<double>{1.6, 0}));
}

}  // namespace
}  // namespace moge::sim
