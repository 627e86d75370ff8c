// The model and the optimizer against the PyTorch oracle's dumps (tests/golden): logits, routing, losses,
// every gradient, ten training losses. Tolerances come from the dumps: float32_error is how far the oracle
// itself is off when it computes in float32, the worst of 8 runs with different roundings.
#include <gtest/gtest.h>

#include <cmath>

#include "io/copy_convert.h"
#include "train/golden_case.h"

namespace moge::train {
namespace {

/// A sum of n terms in one chain rounds partial sums that grow to n terms, in 16 lanes (as PyTorch may) to n
/// / 16: their errors' standard deviations are as 4 to 1.
constexpr double kLongerChains = 4;

class Golden : public testing::TestWithParam<std::string> {
 protected:
  Golden() {
    ctx_.pool = &pool_;
    step_ = case_.step(ctx_, case_.dir, DType::kF32);
  }

  Tensor get(const std::string& name) { return case_.get(name); }
  MicroBatch batch(int64_t i) { return case_.batch(i); }
  double tolerance(const std::string& kind) {
    return kLongerChains * json_["float32_error"][kind].get<double>();
  }

  /// Norm of the difference over the norm.
  static double relative_error(std::span<const float> got, std::span<const float> want) {
    EXPECT_EQ(got.size(), want.size());
    double diff = 0, norm = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      diff += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
      norm += double{want[i]} * want[i];
    }
    return norm > 0 ? std::sqrt(diff / norm) : std::sqrt(diff);
  }

  GoldenCase case_{GetParam()};
  const nlohmann::json& json_ = case_.json;
  ThreadPool pool_{2};
  ExecContext ctx_;
  std::unique_ptr<TrainStep> step_;
};

TEST_P(Golden, AllocatesWhatItPlanned) {
  const spec::ModelConfig& config = step_->model().config;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const TrainStep::MemoryPlan got = case_.step(ctx_, case_.dir, dtype)->memory_plan();
    const TrainStep::MemoryPlan plan = TrainStep::plan(ctx_, config, dtype, case_.loss(),
                                                       get("tokens").dim(1), get("cu_seqlens").dim(1) - 1);
    EXPECT_EQ(plan.weights, got.weights);
    EXPECT_EQ(plan.gradients, got.gradients);
    EXPECT_EQ(plan.optimizer, got.optimizer);
    EXPECT_EQ(plan.activations, got.activations);
    EXPECT_EQ(plan.workspace, got.workspace);
    EXPECT_GT(plan.workspace, 0);
  }
}

TEST_P(Golden, LogitsAndRouting) {
  step_->evaluate(batch(0));
  const int64_t T = get("tokens").dim(1);
  const model::Activations acts = step_->activations(T);
  const OwnedTensor logits = logits_of(*step_, T);
  EXPECT_LE(relative_error(elements<float>(logits), elements<float>(get("logits"))), tolerance("logits"));
  for (int64_t l = 0; step_->model().config.is_moe() && l < step_->model().config.num_hidden_layers; ++l) {
    const Tensor ids = get(str("topk_ids.", l));
    const auto want = elements<int32_t>(ids), got = elements<int32_t>(acts.layers[l].topk_ids);
    EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin(), got.end())) << "layer " << l;
    EXPECT_LE(relative_error(elements<float>(acts.layers[l].topk_weights),
                             elements<float>(get(str("topk_weights.", l)))),
              tolerance("topk_weights"));
  }
}

TEST_P(Golden, EveryGradient) {
  const MicroBatch mb = batch(0);
  const StepResult result = step_->compute_gradients({&mb, 1});
  const double want = *get("loss.cross_entropy").ptr<float>();
  EXPECT_NEAR(result.loss, want, tolerance("loss") * want);
  const auto L = static_cast<double>(step_->model().config.num_hidden_layers);
  if (json_["loss"]["aux_coef"] > 0 && step_->model().config.is_moe()) {
    const double balance = *get("loss.balance").ptr<float>();
    EXPECT_NEAR(result.balance * L, balance, tolerance("loss") * balance);
  }
  for (const model::HfTensor& t : model::hf_tensors(step_->grads(), step_->model().config)) {
    const OwnedTensor grad(DType::kF32, t.view.shape);
    io::copy_convert(grad, t.view);
    EXPECT_LE(relative_error(elements<float>(grad), elements<float>(get("grad." + t.name))),
              tolerance("grad"))
        << t.name;
  }
}

TEST_P(Golden, TenLosses) {
  const Tensor losses = get("losses.cross_entropy"), norms = get("grad_norms");
  for (int64_t s = 0; s < losses.dim(0); ++s) {
    const MicroBatch mb = batch(s % 2);
    StepResult result = step_->compute_gradients({&mb, 1});
    step_->update(result, json_["optimizer"]["lr"]);
    const double want = losses.ptr<float>()[s], norm = norms.ptr<float>()[s];
    EXPECT_NEAR(result.loss, want, tolerance("losses") * want) << "step " << s;
    EXPECT_NEAR(result.grad_norm, norm, tolerance("grad_norms") * norm) << "step " << s;
  }
}

/// The balance loss's gradient, like the others', must not depend on how the step is cut.
TEST_P(Golden, MicroBatchesAddUp) {
  // Both batches as one: tokens one after the other.
  const int64_t T = get("tokens").dim(1);
  const OwnedTensor tokens(DType::kI32, {2 * T}), positions(DType::kI32, {2 * T}),
      targets(DType::kI32, {2 * T});
  std::vector<int32_t> cu = {0};
  const std::vector<MicroBatch> halves = {batch(0), batch(1)};
  for (int64_t i = 0; i < 2; ++i) {
    const auto put = [&](const Tensor& from, const Tensor& to) {
      std::copy_n(from.ptr<int32_t>(), T, to.ptr<int32_t>() + i * T);
    };
    put(halves[i].batch.tokens, tokens);
    put(halves[i].batch.positions, positions);
    put(halves[i].targets, targets);
    for (const int32_t end : elements<int32_t>(halves[i].batch.cu_seqlens))
      if (end > 0) cu.push_back(static_cast<int32_t>(i * T) + end);
  }
  const auto B = static_cast<int64_t>(cu.size());
  const MicroBatch whole{
      {.tokens = tokens, .positions = positions, .cu_seqlens = {cu.data(), DType::kI32, {B}}}, targets};
  TrainStep big(step_->context(),
                model::load_model(ctx_, case_.dir, spec::load_model_config(case_.dir), DType::kF32), {},
                {.balance_coef = 0.5F,
                 .z_coef = 0.01F,
                 .balance_level =
                     json_["loss"]["balance"] == "sequence" ? BalanceLevel::kSequence : BalanceLevel::kBatch},
                2 * T, B);
  const StepResult one = big.compute_gradients({&whole, 1});
  std::vector<std::vector<float>> want;
  for (const model::Parameter& p : model::parameters(big.grads()))
    want.emplace_back(elements<float>(p.tensor).begin(), elements<float>(p.tensor).end());
  const StepResult two = big.compute_gradients(halves);
  // Tokens have the same losses in both, and doubles sum them; a part's balance loss, and the whole's, are
  // floats.
  EXPECT_NEAR(two.loss, one.loss, static_cast<double>(2 * T) * 0x1p-53 * one.loss);
  EXPECT_NEAR(two.balance, one.balance, 2 * 0x1p-24 * one.balance);
  size_t i = 0;
  for (const model::Parameter& p : model::parameters(big.grads()))
    EXPECT_LE(relative_error(elements<float>(p.tensor), want[i++]), tolerance("grad")) << p.name;
}

INSTANTIATE_TEST_SUITE_P(Cases, Golden,
                         testing::Values("moge_4x16", "moge_8x8", "moge_2x8_k2", "router_scale", "ties",
                                         "renormalised", "llama", "qwen3", "qwen3_moe"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace moge::train
