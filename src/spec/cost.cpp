#include "spec/cost.h"

#include <algorithm>
#include <cmath>

namespace moge::spec {
namespace {

ParameterCount count(const ModelConfig& c, int64_t routed_experts) {
  const int64_t V = c.vocab_size, D = c.hidden_size, L = c.num_hidden_layers, E = c.num_experts;
  const LayerLinears w = layer_linears(c);
  ParameterCount n;
  n.embedding = V * D;
  n.lm_head = c.tie_word_embeddings ? 0 : V * D;
  n.attention = L * (w.qkv.weights() + w.o.weights());
  n.attention_bias = L * ((c.attention_bias ? c.q_dim() + 2 * c.kv_dim() : 0) + (c.o_proj_bias ? D : 0));
  n.dense_mlp = L * (w.mlp_gate_up.weights() + w.mlp_down.weights());
  n.router = L * (w.router.weights() + (c.use_router_scale ? E : 0));
  n.routed_experts = L * routed_experts * (w.expert_gate_up.weights() + w.expert_down.weights());
  n.shared_expert = L * (w.shared_gate_up.weights() + w.shared_down.weights());
  n.norms = L * (2 * D + (c.qk_norm ? 2 * c.head_dim : 0)) + D;
  return n;
}

}  // namespace

LayerLinears layer_linears(const ModelConfig& c) {
  const int64_t D = c.hidden_size;
  LayerLinears w;
  w.qkv = {c.q_dim() + 2 * c.kv_dim(), D};
  w.o = {D, c.q_dim()};
  if (!c.is_moe()) {
    w.mlp_gate_up = {2 * c.intermediate_size, D};
    w.mlp_down = {D, c.intermediate_size};
    return w;
  }
  w.router = {c.num_experts, D};
  w.expert_gate_up = {2 * c.moe_intermediate_size, D};
  w.expert_down = {D, c.moe_intermediate_size};
  w.shared_gate_up = {2 * c.shared_expert_intermediate_size, D};
  w.shared_down = {D, c.shared_expert_intermediate_size};
  return w;
}

int64_t attention_flops_per_position(const ModelConfig& config) {
  return 4 * config.q_dim();
}

int64_t kv_elements_per_position(const ModelConfig& config) {
  return 2 * config.kv_dim();
}

ParameterCount parameter_count(const ModelConfig& config) {
  return count(config, config.num_experts);
}

ParameterCount active_parameter_count(const ModelConfig& config) {
  return count(config, config.num_experts_per_tok);
}

FlopCount flop_count(const ModelConfig& c, int64_t context, Phase phase) {
  const double attended = static_cast<double>(context) * (phase == Phase::kDecode ? 1.0 : 0.5);
  const double flops_per_weight = phase == Phase::kTraining ? 6.0 : 2.0;
  const ParameterCount active = active_parameter_count(c);
  const auto matmul = [&](int64_t weights) { return flops_per_weight * static_cast<double>(weights); };
  FlopCount f;
  f.attention_projections = matmul(active.attention);
  f.attention_core = flops_per_weight / 2.0 *
                     static_cast<double>(c.num_hidden_layers * attention_flops_per_position(c)) * attended;
  f.dense_mlp = matmul(active.dense_mlp);
  f.router = matmul(c.num_hidden_layers * layer_linears(c).router.weights());
  f.routed_experts = matmul(active.routed_experts);
  f.shared_expert = matmul(active.shared_expert);
  f.lm_head = matmul(lm_head_linear(c).weights());
  return f;
}

double prompt_flops(const ModelConfig& c, int64_t prompts, int64_t tokens) {
  const FlopCount f = flop_count(c, tokens, Phase::kPrefill);
  return static_cast<double>(prompts) * (static_cast<double>(tokens) * (f.total() - f.lm_head) + f.lm_head);
}

int64_t weight_bytes(const ModelConfig& config, DType dtype) {
  return parameters(config) * size_of(dtype);
}

int64_t kv_bytes_per_token(const ModelConfig& config, DType dtype) {
  return config.num_hidden_layers * kv_elements_per_position(config) * size_of(dtype);
}

int64_t decode_read_bytes(const ModelConfig& config, int64_t context, DType weights, DType kv) {
  const ParameterCount active = active_parameter_count(config);
  const int64_t unread_rows = config.tie_word_embeddings ? 0 : config.vocab_size - 1;
  return (active.total() - unread_rows * config.hidden_size) * size_of(weights) +
         context * kv_bytes_per_token(config, kv);
}

double expected_distinct_experts(const ModelConfig& c, int64_t num_tokens) {
  if (!c.is_moe()) return 0;
  const auto n = static_cast<double>(c.experts_per_group());
  const double missed =
      std::pow(1 - static_cast<double>(c.topk_per_group()) / n, static_cast<double>(num_tokens));
  return static_cast<double>(c.num_experts) * (1 - missed);
}

namespace {

/// A pass over `tokens` tokens that reads or writes the keys and values of `positions`.
double pass_bytes(const ModelConfig& config, int64_t tokens, int64_t positions, const ServingFormat& format) {
  const ParameterCount all = parameter_count(config);
  const auto bytes = [](int64_t elements, DType dtype) {
    return static_cast<double>(elements) * static_cast<double>(size_of(dtype));
  };
  const int64_t head = config.tie_word_embeddings ? all.embedding : all.lm_head;
  const double hit = config.is_moe()
                         ? expected_distinct_experts(config, tokens) / static_cast<double>(config.num_experts)
                         : 0;
  return bytes(all.attention + all.dense_mlp + all.shared_expert, format.weights) +
         hit * bytes(all.routed_experts, format.weights) + bytes(head, format.vocabulary) +
         bytes(all.router + all.norms + all.attention_bias, DType::kF32) +
         bytes(tokens * config.hidden_size, format.vocabulary) +
         static_cast<double>(positions * kv_bytes_per_token(config, format.kv));
}

}  // namespace

double decode_step_bytes(const ModelConfig& config, int64_t batch, int64_t context,
                         const ServingFormat& format) {
  return pass_bytes(config, batch, batch * context, format);
}

double prompt_bytes(const ModelConfig& config, int64_t prompts, int64_t tokens, const ServingFormat& format) {
  return pass_bytes(config, prompts * tokens, prompts * tokens, format);
}

int64_t activation_elements_per_token(const ModelConfig& c) {
  const int64_t D = c.hidden_size;
  const int64_t attention = 2 * c.q_dim() + 2 * c.kv_dim();
  const int64_t mlp =
      c.is_moe() ? 3 * (c.num_experts_per_tok * c.moe_intermediate_size + c.shared_expert_intermediate_size) +
                       c.num_experts + c.num_experts_per_tok * D
                 : 3 * c.intermediate_size;
  return 4 * D + attention + mlp;
}

MemoryPlan serving_memory(const ModelConfig& config, DType weights, DType kv, int64_t cached_tokens,
                          int64_t batch_tokens, int64_t batch_sequences) {
  MemoryPlan plan;
  plan.weights = weight_bytes(config, weights);
  plan.kv_cache = cached_tokens * kv_bytes_per_token(config, kv);
  plan.activations = batch_tokens * activation_elements_per_token(config) * size_of(weights);
  plan.logits = batch_sequences * config.vocab_size * size_of(DType::kF32);
  return plan;
}

MemoryPlan training_memory(const ModelConfig& config, const TrainingSetup& setup) {
  const int64_t n = parameters(config);
  MemoryPlan plan;
  plan.weights = weight_bytes(config, setup.compute);
  plan.gradients = n * size_of(setup.gradients);
  plan.master_weights = setup.master_weights && setup.compute != DType::kF32 ? n * size_of(DType::kF32) : 0;
  plan.optimizer_moments = 2 * n * size_of(setup.moments);
  plan.activations = setup.micro_batch_tokens * config.num_hidden_layers *
                     activation_elements_per_token(config) * size_of(setup.activations);
  plan.logits = 2 * setup.logit_rows * config.vocab_size * size_of(DType::kF32);  // and their gradient
  return plan;
}

}  // namespace moge::spec
