#include "model/activations.h"

#include "model/weights.h"

namespace moge::model {

namespace {

void cut(Tensor& t, int64_t rows) {
  if (t) t = t.slice(0, 0, rows);
}

LayerActivations allocate_layer(Arena& arena, const spec::ModelConfig& c, int64_t T, bool training) {
  const int64_t D = c.hidden_size, H = c.num_attention_heads, KV = c.num_key_value_heads, Dh = c.head_dim;
  const int64_t E = c.num_experts, K = c.num_experts_per_tok, S = num_always_on_experts(c),
                F = expert_width(c);
  const int64_t slots = slots_per_token(c), R = T * slots;
  const auto f32 = [&](Shape shape) { return arena.alloc(DType::kF32, shape); };
  const auto i32 = [&](Shape shape) { return arena.alloc(DType::kI32, shape); };
  LayerActivations a;
  a.x = f32({T, D});
  a.attn_in = f32({T, D});
  a.attn_rstd = f32({T});
  a.qkv = f32({T, H + 2 * KV, Dh});
  a.qk = c.qk_norm ? f32({T, H + KV, Dh}) : a.qkv.slice(1, 0, H + KV);
  if (c.qk_norm) a.qk_rstd = f32({T, H + KV});
  a.attn_out = f32({T, H, Dh});
  if (training) a.attn_lse = f32({T, H});
  a.x_mid = f32({T, D});
  a.mlp_in = f32({T, D});
  a.mlp_rstd = f32({T});
  if (c.is_moe()) {
    a.router_logits = f32({T, E});
    a.router_probs = f32({T, E});
    a.router_lse = f32({T});
    a.topk_ids = i32({T, K});
    a.topk_weights = f32({T, K});
  } else {
    a.topk_ids = i32({T, 0});
    a.topk_weights = f32({T, 0});
  }
  a.offsets = i32({E + S + 1});
  a.row_token = i32({R});
  a.row_weight = f32({R});
  a.slot_row = i32({T, slots});
  a.gate_up = f32({R, 2 * F});
  a.h = f32({R, F});
  return a;
}

}  // namespace

Activations allocate_activations(Arena& arena, const spec::ModelConfig& c, int64_t T, Keep keep) {
  const int64_t slots = slots_per_token(c);
  Activations acts;
  acts.cos_sin = arena.alloc(DType::kF32, {T, c.head_dim});
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    const bool fresh = keep == Keep::kAllLayers || l == 0;
    acts.layers.push_back(fresh ? allocate_layer(arena, c, T, keep == Keep::kAllLayers)
                                : acts.layers.front());
  }
  acts.down = arena.alloc(DType::kF32, {T * slots, c.hidden_size});
  // With one layer's memory the last layer's output goes back to where its input was.
  acts.x = keep == Keep::kAllLayers ? arena.alloc(DType::kF32, {T, c.hidden_size}) : acts.layers.front().x;
  acts.final = arena.alloc(DType::kF32, {T, c.hidden_size});
  acts.rstd = arena.alloc(DType::kF32, {T});
  return acts;
}

Activations first_tokens(const Activations& acts, const spec::ModelConfig& c, int64_t T) {
  const int64_t slots = slots_per_token(c);
  Activations few = acts;
  for (Tensor* t : {&few.cos_sin, &few.x, &few.final, &few.rstd}) cut(*t, T);
  cut(few.down, T * slots);
  for (LayerActivations& a : few.layers) {
    for (Tensor* t : {&a.x, &a.attn_in, &a.attn_rstd, &a.qkv, &a.qk, &a.qk_rstd, &a.attn_out, &a.attn_lse,
                      &a.x_mid, &a.mlp_in, &a.mlp_rstd, &a.router_logits, &a.router_probs, &a.router_lse,
                      &a.topk_ids, &a.topk_weights, &a.slot_row})
      cut(*t, T);
    for (Tensor* t : {&a.row_token, &a.row_weight, &a.gate_up, &a.h}) cut(*t, T * slots);
  }
  return few;
}

ActivationGrads allocate_activation_grads(Arena& arena, const spec::ModelConfig& c, int64_t T) {
  const int64_t D = c.hidden_size, H = c.num_attention_heads, KV = c.num_key_value_heads, Dh = c.head_dim;
  const int64_t K = c.num_experts_per_tok;
  const int64_t R = T * slots_per_token(c);
  const auto f32 = [&](Shape shape) { return arena.alloc(DType::kF32, shape); };
  ActivationGrads g;
  g.dx = f32({T, D});
  g.dnormed = f32({T, D});
  g.dattn_out = f32({T, H, Dh});
  g.dqkv = f32({T, H + 2 * KV, Dh});
  g.dqk = c.qk_norm ? f32({T, H + KV, Dh}) : g.dqkv.slice(1, 0, H + KV);
  g.dh = f32({R, expert_width(c)});
  g.drows = f32({R, D});
  g.drow_weight = f32({R});
  if (c.is_moe()) {
    g.dtopk_weights = f32({T, K});
    g.dprobs = f32({T, c.num_experts});
    g.dlse = f32({T});
    g.dlogits = f32({T, c.num_experts});
    g.balance_loss = f32({c.num_hidden_layers});
    g.z_loss = f32({c.num_hidden_layers});
  }
  return g;
}

ActivationGrads first_tokens(const ActivationGrads& grads, const spec::ModelConfig& c, int64_t T) {
  ActivationGrads few = grads;
  for (Tensor* t : {&few.dx, &few.dnormed, &few.dattn_out, &few.dqkv, &few.dqk, &few.dtopk_weights,
                    &few.dprobs, &few.dlse, &few.dlogits})
    cut(*t, T);
  for (Tensor* t : {&few.dh, &few.drows, &few.drow_weight}) cut(*t, T * slots_per_token(c));
  return few;
}

}  // namespace moge::model
