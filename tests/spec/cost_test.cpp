#include "spec/cost.h"

#include <gtest/gtest.h>

#include <string>

namespace moge::spec {
namespace {

ModelConfig shipped(const std::string& name) {
  return load_model_config(MOGE_SOURCE_DIR "/configs/models/" + name);
}

double billions(int64_t n) {
  return static_cast<double>(n) * 1e-9;
}

TEST(Cost, ParametersOfKnownModels) {
  const ModelConfig pangu = shipped("pangu-pro-moe-72b-a16b");
  EXPECT_NEAR(billions(parameters(pangu)), 71.99, 0.005);  // arXiv 2505.21411, table 1
  EXPECT_NEAR(billions(active_parameters(pangu)), 16.50, 0.005);
  EXPECT_EQ(parameters(shipped("dense-32b")),
            32763876352);  // Qwen2.5-32B and -72B have these shapes: what their
  EXPECT_EQ(parameters(shipped("dense-72b")),
            72706203648);  // safetensors indices state, in bf16, is twice this
  EXPECT_EQ(parameters(shipped("qwen3-30b-a3b")), 30532122624);  // likewise, Qwen3-30B-A3B
  EXPECT_NEAR(billions(active_parameters(shipped("qwen3-30b-a3b"))), 3.35, 0.01);
  EXPECT_NEAR(billions(parameters(shipped("moge-s-22m"))), 0.0218, 0.0001);
  EXPECT_NEAR(billions(parameters(shipped("dense-500m"))), 0.5, 0.01);
  EXPECT_EQ(parameters(shipped("demo-moge")), parameters(shipped("demo-topk")));
}

TEST(Cost, FlopsByHand) {
  const ModelConfig c = shipped("moge-s-22m");
  const int64_t L = 10, D = 256;
  const int64_t weights = L * (D * 256 * 2 + D * 128 * 2 + 16 * D + (4 * 128 + 256) * 3 * D) + 8192 * D;
  const auto forward = static_cast<double>(2 * weights);
  const auto attention_per_position = static_cast<double>(L * 4 * 256);
  EXPECT_EQ(flops_per_token(c, 0, Phase::kDecode), forward);
  EXPECT_EQ(flops_per_token(c, 100, Phase::kDecode), forward + 100 * attention_per_position);
  EXPECT_EQ(flops_per_token(c, 100, Phase::kPrefill), forward + 50 * attention_per_position);
  EXPECT_EQ(flops_per_token(c, 100, Phase::kTraining), 3 * flops_per_token(c, 100, Phase::kPrefill));
  const double head = 2.0 * 8192 * D;
  EXPECT_EQ(prompt_flops(c, 3, 100), 3 * (100 * (flops_per_token(c, 100, Phase::kPrefill) - head) + head));
}

TEST(Cost, Bytes) {
  const ModelConfig pangu = shipped("pangu-pro-moe-72b-a16b");
  EXPECT_EQ(kv_bytes_per_token(pangu, DType::kBF16), 2 * 48 * 8 * 128 * 2);
  EXPECT_EQ(weight_bytes(pangu, DType::kI8), parameters(pangu));
  EXPECT_EQ(
      decode_read_bytes(pangu, 10, DType::kBF16, DType::kBF16),
      2 * (active_parameters(pangu) - int64_t{153375} * 5120) + 10 * kv_bytes_per_token(pangu, DType::kBF16));
  const ModelConfig tied = shipped("dense-500m");
  EXPECT_EQ(decode_read_bytes(tied, 0, DType::kBF16, DType::kBF16), weight_bytes(tied, DType::kBF16));
}

TEST(Cost, BytesOfAPass) {
  const ModelConfig c = shipped("pangu-pro-moe-72b-a16b");
  const ServingFormat f{.weights = DType::kI8, .kv = DType::kI8};
  // A prompt's positions are written once; as many sequences of one position each read as much.
  EXPECT_EQ(prompt_bytes(c, 3, 100, f), decode_step_bytes(c, 300, 1, f));
  const double position = static_cast<double>(kv_bytes_per_token(c, DType::kI8));
  EXPECT_EQ(decode_step_bytes(c, 7, 50, f) - decode_step_bytes(c, 7, 20, f), 7 * 30 * position);
  // More tokens than experts hit them all.
  const double all = prompt_bytes(c, 2, 2048, f);
  EXPECT_NEAR(prompt_bytes(c, 4, 2048, f) - all, 4096 * (position + 5120.0 * 2), 1e-9 * all);
}

TEST(Cost, TrainingMemory) {
  const ModelConfig c = shipped("demo-moge");
  const int64_t n = parameters(c);
  const MemoryPlan bf16 = training_memory(c, {.micro_batch_tokens = 1024, .logit_rows = 128});
  EXPECT_EQ(bf16.weights + bf16.gradients + bf16.master_weights + bf16.optimizer_moments,
            n * (2 + 4 + 4 + 8));
  EXPECT_EQ(bf16.logits, 2 * 128 * 4096 * 4);
  EXPECT_EQ(bf16.activations, 1024 * 6 * 4 * activation_elements_per_token(c));
  const MemoryPlan f32 = training_memory(c, {.compute = DType::kF32});
  EXPECT_EQ(f32.total(), n * 16);
  EXPECT_EQ(f32.master_weights, 0);
}

TEST(Cost, ServingMemory) {
  const ModelConfig c = shipped("pangu-pro-moe-72b-a16b");
  const MemoryPlan plan = serving_memory(c, DType::kBF16, DType::kI8, 1000, 8, 2);
  EXPECT_EQ(plan.weights, weight_bytes(c, DType::kBF16));
  EXPECT_EQ(plan.kv_cache, 1000 * kv_bytes_per_token(c, DType::kI8));
  EXPECT_EQ(plan.activations, 8 * activation_elements_per_token(c) * 2);
  EXPECT_EQ(plan.logits, 2 * c.vocab_size * 4);
  EXPECT_EQ(plan.total(), plan.weights + plan.kv_cache + plan.activations + plan.logits);
}

}  // namespace
}  // namespace moge::spec
