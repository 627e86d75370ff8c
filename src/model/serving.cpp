#include "model/serving.h"

#include <cmath>

#include "model/activations.h"
#include "model/weights.h"
#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/moe_route.h"
#include "ops/quant_matmul.h"
#include "ops/quantize.h"
#include "ops/residual_norm.h"
#include "ops/rope.h"
#include "ops/rope_kv_write.h"
#include "ops/token_layer.h"

namespace moge::model {

namespace {

/// What a product reads: eight-bit rows with their scales, or the bf16 rows.
struct Rows {
  Tensor a, scale;
};
Rows quantised_or(const Tensor& bf16, const Tensor& q8, const Tensor& scale) {
  return q8 ? Rows{q8, scale} : Rows{bf16, {}};
}
/// The same for rows that come from an op that cannot quantise on its own.
Rows quantise(ExecContext& ctx, const Tensor& bf16, const Tensor& q8, const Tensor& scale) {
  if (q8) ops::quantize_rows(ctx, {.q = q8, .scale = scale, .x = bf16});
  return quantised_or(bf16, q8, scale);
}

/// a.q8, or a.normed without, to the queries, keys and values of layer w.
void qkv_projection(ExecContext& ctx, const ServingLayer& w, const ServingActivations& a) {
  const Rows in = quantised_or(a.normed, a.q8, a.q8_scale);
  ops::quant_matmul(ctx, {.c = flat(a.qkv),
                          .a = in.a,
                          .a_scale = in.scale,
                          .w = w.qkv_proj.w,
                          .w_scale = w.qkv_proj.scale,
                          .bias = w.qkv_bias});
}

void attention(ExecContext& ctx, const spec::ModelConfig& c, const ServingLayer& w, const Batch& batch,
               const KvPages& pages, int decode_rows, const ServingActivations& a) {
  ops::rope_kv_write(ctx, {.q = a.q,
                           .k_pages = pages.k,
                           .v_pages = pages.v,
                           .k_scales = pages.k_scales,
                           .v_scales = pages.v_scales,
                           .qkv = a.qkv,
                           .q_norm = w.q_norm,
                           .k_norm = w.k_norm,
                           .cos_sin = a.cos_sin,
                           .slots = batch.slots,
                           .eps = static_cast<float>(c.rms_norm_eps)});
  ops::paged_attention(ctx, {.out = a.attn_out,
                             .q = a.q,
                             .k_pages = pages.k,
                             .v_pages = pages.v,
                             .k_scales = pages.k_scales,
                             .v_scales = pages.v_scales,
                             .block_table = batch.block_table,
                             .cu_q = batch.cu_seqlens,
                             .kv_lens = batch.kv_lens,
                             .scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim)),
                             .decode_rows = decode_rows});
}

/// a.attn_out to a.delta.
void output_projection(ExecContext& ctx, const ServingLayer& w, const ServingActivations& a) {
  const Rows out = quantise(ctx, flat(a.attn_out), a.attn_q8, a.attn_scale);
  ops::quant_matmul(ctx, {.c = a.delta,
                          .a = out.a,
                          .a_scale = out.scale,
                          .w = w.o_proj.w,
                          .w_scale = w.o_proj.scale,
                          .bias = w.o_bias});
}

/// The first half of the MLP of every token (the shared experts' as one, or a dense model's): a.q8, or
/// a.normed without, to a.shared_h.
void shared_gate_up(ExecContext& ctx, const ServingLayer& w, const ServingActivations& a,
                    bool beside_previous) {
  const Rows in = quantised_or(a.normed, a.q8, a.q8_scale);
  ops::quant_matmul(ctx, {.c = a.shared_h,
                          .a = in.a,
                          .a_scale = in.scale,
                          .w = w.shared_gate_up_proj.w,
                          .w_scale = w.shared_gate_up_proj.scale,
                          .silu_mul = true,
                          .beside_previous = beside_previous});
}
/// The second half, of quantised rows, to `out` [T, D].
void shared_down(ExecContext& ctx, const ServingLayer& w, const Rows& h, const Tensor& out,
                 bool beside_previous) {
  ops::quant_matmul(ctx, {.c = out,
                          .a = h.a,
                          .a_scale = h.scale,
                          .w = w.shared_down_proj.w,
                          .w_scale = w.shared_down_proj.scale,
                          .beside_previous = beside_previous});
}

/// Reads a.q8, or a.normed without, and writes a.delta.
void dense_mlp(ExecContext& ctx, const ServingLayer& w, const ServingActivations& a) {
  shared_gate_up(ctx, w, a, false);
  shared_down(ctx, w, quantise(ctx, a.shared_h, a.shared_h_q8, a.shared_h_scale), a.delta, false);
}

/// Reads a.q8, or a.normed without, and a.normed for the router; writes a.down and where each token's rows
/// lie: those of the routed experts, expert by expert, then the tokens' of the shared experts. The shared
/// experts' products begin where the routed ones' end, multiprocessor by multiprocessor.
void moge_block(ExecContext& ctx, const spec::ModelConfig& c, const ServingLayer& w,
                const ServingActivations& a) {
  const bool shared = bool(w.shared_down_proj.w);
  const int64_t R = a.h.dim(0);
  const Rows in = quantised_or(a.normed, a.q8, a.q8_scale);
  ops::moe_route(ctx, {.topk_ids = a.topk_ids,
                       .topk_weights = a.topk_weights,
                       .offsets = a.offsets,
                       .row_token = a.row_token,
                       .row_weight = a.row_weight,
                       .slot_row = a.slot_row,
                       .x = a.normed,
                       .gate = w.gate,
                       .router_scale = w.router_scale,
                       .num_groups = static_cast<int>(c.num_expert_groups),
                       .renormalize = c.norm_topk_prob});
  const Tensor offsets = a.offsets.slice(0, 0, c.num_experts + 1);
  ops::quant_matmul(ctx, {.c = a.h,
                          .a = in.a,
                          .a_scale = in.scale,
                          .w = w.gate_up_proj.w,
                          .w_scale = w.gate_up_proj.scale,
                          .offsets = offsets,
                          .row_ids = a.row_token.slice(0, 0, R),
                          .silu_mul = true});
  Rows shared_h;
  if (shared) {
    shared_gate_up(ctx, w, a, true);
    shared_h = quantise(ctx, a.shared_h, a.shared_h_q8, a.shared_h_scale);
  }
  const Rows h = quantise(ctx, a.h, a.h_q8, a.h_scale);
  ops::quant_matmul(ctx, {.c = a.down.slice(0, 0, R),
                          .a = h.a,
                          .a_scale = h.scale,
                          .w = w.down_proj.w,
                          .w_scale = w.down_proj.scale,
                          .offsets = offsets,
                          .row_weight = a.row_weight.slice(0, 0, R)});
  if (shared) shared_down(ctx, w, shared_h, a.down.slice(0, R, a.down.dim(0)), true);
}

/// Adds what the last block computed to the residual stream (with `keep_x` not for later) and normalises it,
/// for the next product (`q8`, or `bf16` without) and for what reads bf16. Either may be missing.
void add_and_norm(ExecContext& ctx, const spec::ModelConfig& c, const Tensor& delta, const Tensor& rows,
                  const Tensor& weight, const Tensor& bf16, const Tensor& q8, const ServingActivations& a,
                  bool keep_x = false) {
  ops::residual_norm(ctx, {.x = a.x,
                           .delta = delta,
                           .rows = rows,
                           .slot_row = rows ? a.slot_row : Tensor(),
                           .weight = weight,
                           .normed = bf16,
                           .q = q8,
                           .q_scale = q8 ? a.q8_scale : Tensor(),
                           .eps = static_cast<float>(c.rms_norm_eps),
                           .keep_x = keep_x});
}
/// The bf16 rows of a norm that feeds a product: none where the product reads eight bits.
Tensor unless_quantised(const ServingActivations& a) {
  return a.q8 ? Tensor() : a.normed;
}

/// What follows the attention of layer w, up to the attention of layer `next`, or to the final norm.
void rest_of_layer(ExecContext& ctx, const spec::ModelConfig& c, const ServingLayer& w,
                   const ServingLayer* next, const Tensor& next_norm, const ServingActivations& a) {
  const Tensor none;
  const Tensor moge_bf16 = c.is_moe() ? a.normed : unless_quantised(a);  // the router reads bf16
  output_projection(ctx, w, a);
  // An MoE's results come in rows of their own, so that delta waits for them and x is written once a layer.
  add_and_norm(ctx, c, a.delta, none, w.post_attention_layernorm, moge_bf16, a.q8, a, c.is_moe());
  if (c.is_moe())
    moge_block(ctx, c, w, a);
  else
    dense_mlp(ctx, w, a);
  add_and_norm(ctx, c, a.delta, a.down, next_norm, next ? unless_quantised(a) : a.normed, next ? a.q8 : none,
               a);
  if (next) qkv_projection(ctx, *next, a);
}

/// The same of one token in one op.
ops::TokenLayer token_layer(const spec::ModelConfig& c, const ServingLayer& w, const ServingLayer* next,
                            const Tensor& next_norm, const ServingActivations& a) {
  const Tensor none;
  return {.x = a.x,
          .qkv = next ? flat(a.qkv) : none,
          .normed = next ? none : a.normed,
          .attn_out = flat(a.attn_out),
          .o_proj = w.o_proj.w,
          .o_scale = w.o_proj.scale,
          .o_bias = w.o_bias,
          .norm = w.post_attention_layernorm,
          .gate = w.gate,
          .router_scale = w.router_scale,
          .gate_up = w.gate_up_proj.w,
          .gate_up_scale = w.gate_up_proj.scale,
          .down = w.down_proj.w,
          .down_scale = w.down_proj.scale,
          .shared_gate_up = w.shared_gate_up_proj.w,
          .shared_gate_up_scale = w.shared_gate_up_proj.scale,
          .shared_down = w.shared_down_proj.w,
          .shared_down_scale = w.shared_down_proj.scale,
          .next_norm = next_norm,
          .next_qkv = next ? next->qkv_proj.w : none,
          .next_scale = next ? next->qkv_proj.scale : none,
          .next_bias = next ? next->qkv_bias : none,
          .experts_per_token = static_cast<int>(c.num_experts_per_tok),
          .num_groups = static_cast<int>(c.num_expert_groups),
          .renormalize = c.norm_topk_prob,
          .eps = static_cast<float>(c.rms_norm_eps)};
}

}  // namespace

void serving_fwd(ExecContext& ctx, const spec::ModelConfig& c, const ServingWeights& w, const Batch& batch,
                 const KvCache& cache, int decode_rows, const ServingActivations& a) {
  const Tensor none;
  ops::rope_table(ctx, {.cos_sin = a.cos_sin, .positions = batch.positions, .theta = c.rope_theta});
  ops::embedding_fwd(ctx, {.y = a.x, .weight = w.embed_tokens, .ids = batch.tokens});
  add_and_norm(ctx, c, none, none, w.layers.front().input_layernorm, unless_quantised(a), a.q8, a);
  qkv_projection(ctx, w.layers.front(), a);
  for (size_t l = 0; l < w.layers.size(); ++l) {
    const ServingLayer& layer = w.layers[l];
    const ServingLayer* next = l + 1 < w.layers.size() ? &w.layers[l + 1] : nullptr;
    const Tensor& next_norm = next ? next->input_layernorm : w.norm;
    attention(ctx, c, layer, batch, cache.layer(static_cast<int64_t>(l)), decode_rows, a);
    if (c.is_moe() && a.x.dim(0) == 1 && layer.o_proj.w.dtype == DType::kI8) {
      const ops::TokenLayer token = token_layer(c, layer, next, next_norm, a);
      if (ops::has_token_layer(ctx, token)) {
        ops::token_layer(ctx, token);
        if (!ctx.planning) continue;  // another layer may go op by op
      }
    }
    rest_of_layer(ctx, c, layer, next, next_norm, a);
  }
}

void serving_head(ExecContext& ctx, const ServingWeights& w, const Tensor& normed, const Tensor& rows,
                  const Tensor& logits) {
  ops::quant_matmul(ctx, {.c = logits, .a = normed, .w = w.lm_head, .row_ids = rows});
}

ServingActivations allocate_serving_activations(Arena& arena, const spec::ModelConfig& c, DType weights,
                                                int64_t T) {
  const int64_t D = c.hidden_size, H = c.num_attention_heads, KV = c.num_key_value_heads, Dh = c.head_dim;
  const int64_t E = c.num_experts, K = c.is_moe() ? c.num_experts_per_tok : 0, R = T * K;
  const int64_t M = always_on_width(c), slots = K + (M > 0 ? 1 : 0);
  const auto f32 = [&](Shape shape) { return arena.alloc(DType::kF32, shape); };
  const auto i32 = [&](Shape shape) { return arena.alloc(DType::kI32, shape); };
  const auto bf16 = [&](Shape shape) { return arena.alloc(DType::kBF16, shape); };
  const bool quantised = weights != DType::kBF16;
  const auto q8 = [&](Shape shape) { return quantised ? arena.alloc(weights, shape) : Tensor(); };
  const auto scale = [&](int64_t rows) { return quantised ? f32({rows}) : Tensor(); };
  ServingActivations a;
  a.cos_sin = f32({T, Dh});
  a.x = f32({T, D});
  a.normed = bf16({T, D});
  a.q8 = q8({T, D});
  a.q8_scale = scale(T);
  a.qkv = bf16({T, H + 2 * KV, Dh});
  a.q = bf16({T, H, Dh});
  a.attn_out = bf16({T, H, Dh});
  a.attn_q8 = q8({T, H * Dh});
  a.attn_scale = scale(T);
  a.delta = bf16({T, D});
  if (c.is_moe()) {
    a.topk_ids = i32({T, K});
    a.topk_weights = f32({T, K});
    a.offsets = i32({E + slots - K + 1});
    a.row_token = i32({T * slots});
    a.row_weight = f32({T * slots});
    a.slot_row = i32({T, slots});
    a.h = bf16({R, expert_width(c)});
    a.h_q8 = q8({R, expert_width(c)});
    a.h_scale = scale(R);
    a.down = bf16({T * slots, D});
  }
  if (M > 0) {
    a.shared_h = bf16({T, M});
    a.shared_h_q8 = q8({T, M});
    a.shared_h_scale = scale(T);
  }
  return a;
}

ServingActivations first_tokens(const ServingActivations& acts, const spec::ModelConfig& c, int64_t T) {
  ServingActivations few = acts;
  const auto cut = [](Tensor& t, int64_t rows) {
    if (t) t = t.slice(0, 0, rows);
  };
  for (Tensor* t : {&few.cos_sin, &few.x, &few.normed, &few.q8, &few.q8_scale, &few.qkv, &few.q,
                    &few.attn_out, &few.attn_q8, &few.attn_scale, &few.delta, &few.topk_ids,
                    &few.topk_weights, &few.slot_row, &few.shared_h, &few.shared_h_q8, &few.shared_h_scale})
    cut(*t, T);
  const int64_t K = c.num_experts_per_tok, slots = few.slot_row ? few.slot_row.dim(1) : 0;
  for (Tensor* t : {&few.h, &few.h_q8, &few.h_scale}) cut(*t, T * K);
  for (Tensor* t : {&few.row_token, &few.row_weight, &few.down}) cut(*t, T * slots);
  return few;
}

}  // namespace moge::model
