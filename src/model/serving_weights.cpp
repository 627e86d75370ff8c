#include "model/serving_weights.h"

#include "model/weights.h"
#include "ops/matmul.h"
#include "ops/quant_matmul.h"

namespace moge::model {

namespace {

ServingLinear allocate_linear(Arena& arena, DType dtype, Shape shape) {
  if (shape.numel() == 0) return {};
  ServingLinear linear{arena.alloc(dtype, shape), {}};
  if (dtype == DType::kBF16) return linear;
  linear.scale = shape.ndim() == 2 ? arena.alloc(DType::kF32, {shape[0]})
                                   : arena.alloc(DType::kF32, {shape[0], shape[1]});
  return linear;
}

}  // namespace

void check_weight_dtype(DType dtype, const char* what) {
  check<UsageError>(dtype == DType::kI8 || dtype == DType::kFP8E4M3 || dtype == DType::kBF16, what, " ",
                    name_of(dtype), ": expected i8, fp8_e4m3 or bf16");
}

void check_kv_dtype(DType dtype, const char* what) {
  check<UsageError>(
      dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kI8 || dtype == DType::kFP8E4M3, what,
      " ", name_of(dtype), ": expected bf16, f16, i8 or fp8_e4m3");
}

ServingWeights allocate_serving_weights(Arena& arena, const spec::ModelConfig& c, DType dtype) {
  const int64_t D = c.hidden_size, qkv_dim = c.q_dim() + 2 * c.kv_dim(), F = expert_width(c);
  const int64_t E = c.num_experts, M = always_on_width(c);
  const auto f32 = [&](bool present, Shape shape) {
    return present ? arena.alloc(DType::kF32, shape) : Tensor();
  };
  check_weight_dtype(dtype);
  check<FileError>(F % ops::kGateUpBlock == 0, c.is_moe() ? "moe_intermediate_size " : "intermediate_size ",
                   F, ": expected a multiple of ", ops::kGateUpBlock,
                   ", in which serving lays out the weights");
  ServingWeights w;
  w.embed_tokens = arena.alloc(DType::kBF16, {c.vocab_size, D});
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    ServingLayer layer;
    layer.input_layernorm = f32(true, {D});
    layer.qkv_proj = allocate_linear(arena, dtype, {qkv_dim, D});
    layer.qkv_bias = f32(c.attention_bias, {qkv_dim});
    layer.q_norm = f32(c.qk_norm, {c.head_dim});
    layer.k_norm = f32(c.qk_norm, {c.head_dim});
    layer.o_proj = allocate_linear(arena, dtype, {D, c.q_dim()});
    layer.o_bias = f32(c.o_proj_bias, {D});
    layer.post_attention_layernorm = f32(true, {D});
    layer.gate = f32(c.is_moe(), {c.num_experts, D});
    layer.router_scale = f32(c.use_router_scale, {c.num_experts});
    layer.gate_up_proj = allocate_linear(arena, dtype, {E, 2 * F, D});
    layer.down_proj = allocate_linear(arena, dtype, {E, D, F});
    layer.shared_gate_up_proj = allocate_linear(arena, dtype, {2 * M, D});
    layer.shared_down_proj = allocate_linear(arena, dtype, {D, M});
    w.layers.push_back(layer);
  }
  w.norm = f32(true, {D});
  w.lm_head = c.tie_word_embeddings ? w.embed_tokens : arena.alloc(DType::kBF16, {c.vocab_size, D});
  return w;
}

ServingModel allocate_serving_model(ExecContext& ctx, const spec::ModelConfig& config, DType dtype) {
  Arena plan;
  allocate_serving_weights(plan, config, dtype);
  ServingModel model{config, dtype, Arena(plan.used_bytes(), "weights", ctx.backend), {}};
  model.weights = allocate_serving_weights(model.memory, config, dtype);
  return model;
}

void pack_for_serving(ExecContext& ctx, ServingWeights& w) {
  for (ServingLayer& layer : w.layers) {
    if (layer.gate) layer.gate = ops::pack_weight(ctx, layer.gate);
    for (ServingLinear* linear : {&layer.qkv_proj, &layer.o_proj, &layer.gate_up_proj, &layer.down_proj,
                                  &layer.shared_gate_up_proj, &layer.shared_down_proj})
      if (linear->w) linear->w = ops::pack_quant_weight(ctx, linear->w);
  }
}

}  // namespace moge::model
