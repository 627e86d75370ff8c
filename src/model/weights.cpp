#include "model/weights.h"

#include <cmath>

#include "core/rng.h"

namespace moge::model {

Weights allocate_weights(Arena& arena, const spec::ModelConfig& c, DType dtype) {
  const int64_t D = c.hidden_size;
  const int64_t qkv_dim = c.q_dim() + 2 * c.kv_dim();
  const int64_t num_experts = c.num_experts + num_always_on_experts(c);
  const int64_t F = expert_width(c);
  const auto f32 = [&](bool present, Shape shape) {
    return present ? arena.alloc(DType::kF32, shape) : Tensor();
  };
  Weights w;
  w.embed_tokens = arena.alloc(dtype, {c.vocab_size, D});
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    LayerWeights layer;
    layer.input_layernorm = f32(true, {D});
    layer.qkv_proj = arena.alloc(dtype, {qkv_dim, D});
    layer.qkv_bias = f32(c.attention_bias, {qkv_dim});
    layer.q_norm = f32(c.qk_norm, {c.head_dim});
    layer.k_norm = f32(c.qk_norm, {c.head_dim});
    layer.o_proj = arena.alloc(dtype, {D, c.q_dim()});
    layer.o_bias = f32(c.o_proj_bias, {D});
    layer.post_attention_layernorm = f32(true, {D});
    layer.gate = f32(c.is_moe(), {c.num_experts, D});
    layer.router_scale = f32(c.use_router_scale, {c.num_experts});
    layer.gate_up_proj = arena.alloc(dtype, {num_experts, 2 * F, D});
    layer.down_proj = arena.alloc(dtype, {num_experts, D, F});
    w.layers.push_back(layer);
  }
  w.norm = f32(true, {D});
  w.tied = c.tie_word_embeddings;
  w.lm_head = w.tied ? w.embed_tokens : arena.alloc(dtype, {c.vocab_size, D});
  return w;
}

std::vector<Parameter> parameters(const Weights& w) {
  std::vector<Parameter> all;
  const auto add = [&](const std::string& name, const Tensor& t, bool decay) {
    if (t) all.push_back({name, t, decay});
  };
  add("embed_tokens", w.embed_tokens, true);
  for (size_t l = 0; l < w.layers.size(); ++l) {
    const LayerWeights& layer = w.layers[l];
    const std::string p = str("layers.", l, ".");
    add(p + "input_layernorm", layer.input_layernorm, false);
    add(p + "qkv_proj", layer.qkv_proj, true);
    add(p + "qkv_bias", layer.qkv_bias, false);
    add(p + "q_norm", layer.q_norm, false);
    add(p + "k_norm", layer.k_norm, false);
    add(p + "o_proj", layer.o_proj, true);
    add(p + "o_bias", layer.o_bias, false);
    add(p + "post_attention_layernorm", layer.post_attention_layernorm, false);
    add(p + "gate", layer.gate, true);
    add(p + "router_scale", layer.router_scale, false);
    add(p + "gate_up_proj", layer.gate_up_proj, true);
    add(p + "down_proj", layer.down_proj, true);
  }
  add("norm", w.norm, false);
  if (!w.tied) add("lm_head", w.lm_head, true);
  return all;
}

namespace {

/// gate_proj, up_proj and down_proj of `count` experts from `first` on that the file holds as one.
void add_expert(std::vector<HfTensor>& all, const std::string& prefix, const LayerWeights& w, int64_t first,
                int64_t count) {
  const int64_t F = w.down_proj.dim(2), D = w.down_proj.dim(1);
  const Tensor gate_up = w.gate_up_proj.slice(0, first, first + count);  // [count, 2F, D]
  Tensor down = w.down_proj.slice(0, first, first + count);              // [count, D, F]
  std::swap(down.strides[0], down.strides[1]);
  down.shape = {D, count, F};
  all.push_back({prefix + "gate_proj.weight", gate_up.slice(1, 0, F), {count * F, D}});
  all.push_back({prefix + "up_proj.weight", gate_up.slice(1, F, 2 * F), {count * F, D}});
  all.push_back({prefix + "down_proj.weight", down, {D, count * F}});
}

}  // namespace

std::vector<HfTensor> hf_tensors(const Weights& w, const spec::ModelConfig& c) {
  std::vector<HfTensor> all;
  const auto add = [&](const std::string& name, const Tensor& t) {
    if (t) all.push_back({name, t, t.shape});
  };
  const int64_t q = c.q_dim(), kv = c.kv_dim();
  add("model.embed_tokens.weight", w.embed_tokens);
  for (size_t l = 0; l < w.layers.size(); ++l) {
    const LayerWeights& layer = w.layers[l];
    const std::string p = str("model.layers.", l, ".");
    const std::string attn = p + "self_attn.";
    const std::string mlp = p + "mlp.";
    add(p + "input_layernorm.weight", layer.input_layernorm);
    add(attn + "q_proj.weight", layer.qkv_proj.slice(0, 0, q));
    add(attn + "k_proj.weight", layer.qkv_proj.slice(0, q, q + kv));
    add(attn + "v_proj.weight", layer.qkv_proj.slice(0, q + kv, q + 2 * kv));
    if (layer.qkv_bias) {
      add(attn + "q_proj.bias", layer.qkv_bias.slice(0, 0, q));
      add(attn + "k_proj.bias", layer.qkv_bias.slice(0, q, q + kv));
      add(attn + "v_proj.bias", layer.qkv_bias.slice(0, q + kv, q + 2 * kv));
    }
    add(attn + "q_norm.weight", layer.q_norm);
    add(attn + "k_norm.weight", layer.k_norm);
    add(attn + "o_proj.weight", layer.o_proj);
    add(attn + "o_proj.bias", layer.o_bias);
    add(p + "post_attention_layernorm.weight", layer.post_attention_layernorm);
    if (!c.is_moe()) {
      add_expert(all, mlp, layer, 0, 1);
      continue;
    }
    add(mlp + "gate.weight", layer.gate);
    if (layer.router_scale) all.push_back({mlp + "router_scale", layer.router_scale, {1, c.num_experts}});
    for (int64_t e = 0; e < c.num_experts; ++e) add_expert(all, str(mlp, "experts.", e, "."), layer, e, 1);
    if (c.num_shared_experts() > 0)
      add_expert(all, mlp + "shared_expert.", layer, c.num_experts, c.num_shared_experts());
  }
  add("model.norm.weight", w.norm);
  if (!c.tie_word_embeddings) add("lm_head.weight", w.lm_head);
  return all;
}

void init_weights(const Weights& weights, const spec::ModelConfig& c, uint64_t seed, ThreadPool& pool) {
  const auto std_dev = static_cast<float>(c.initializer_range);
  const float residual = std_dev / std::sqrt(2.0F * static_cast<float>(c.num_hidden_layers));
  uint64_t stream = 0;
  for (const Parameter& p : parameters(weights)) {
    const std::string field = p.name.substr(p.name.rfind('.') + 1);
    const bool ones = field.ends_with("norm") || field == "router_scale";
    const bool to_residual = field == "o_proj" || field == "down_proj";
    const float scale = to_residual ? residual : p.decay ? std_dev : 0.0F;
    const Rng rng(seed, stream++);
    const auto store = [&p](uint64_t i, float value) {
      if (p.tensor.dtype == DType::kBF16)
        p.tensor.ptr<BF16>()[i] = to_bf16(value);
      else
        p.tensor.ptr<float>()[i] = value;
    };
    parallel_for(pool, p.tensor.numel(), 1 << 14, [&](int64_t first, int64_t last) {
      const auto begin = static_cast<uint64_t>(first), end = static_cast<uint64_t>(last);
      if (ones || scale == 0) {
        for (uint64_t i = begin; i < end; ++i) store(i, ones ? 1.0F : 0.0F);
      } else {
        rng.for_normals(begin, end, [&](uint64_t i, float normal) { store(i, scale * normal); });
      }
    });
  }
}

}  // namespace moge::model
