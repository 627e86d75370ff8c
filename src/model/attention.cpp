#include "model/attention.h"

#include <array>
#include <cmath>

#include "ops/attention.h"
#include "ops/matmul.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"

namespace moge::model {

namespace {

struct QkvHeads {
  QkvHeads(const spec::ModelConfig& c, const Tensor& qk, const Tensor& qkv)
      : q(qk.slice(1, 0, c.num_attention_heads)),
        k(qk.slice(1, c.num_attention_heads, c.num_attention_heads + c.num_key_value_heads)),
        v(qkv.slice(1, c.num_attention_heads + c.num_key_value_heads, qkv.dim(1))) {}
  Tensor q, k, v;
};

float softmax_scale(const spec::ModelConfig& c) {
  return 1.0F / std::sqrt(static_cast<float>(c.head_dim));
}

/// QK-norm runs over q and k heads alike: one rmsnorm each, with its own weight.
struct QkNorm {
  Tensor weight, dweight;
  int64_t begin, end;  // heads of [q, k]
  Tensor of(const Tensor& t) const { return t.slice(1, begin, end); }
};
std::array<QkNorm, 2> qk_norms(const spec::ModelConfig& c, const LayerWeights& w,
                               const LayerWeights& dw = {}) {
  const int64_t H = c.num_attention_heads;
  return {QkNorm{w.q_norm, dw.q_norm, 0, H}, QkNorm{w.k_norm, dw.k_norm, H, H + c.num_key_value_heads}};
}

}  // namespace

void attention_block_fwd(ExecContext& ctx, const spec::ModelConfig& c, const LayerWeights& w,
                         const Batch& batch, const Tensor& cos_sin, const KvCache* cache, int64_t layer_idx,
                         const LayerActivations& a) {
  const auto eps = static_cast<float>(c.rms_norm_eps);
  ops::rmsnorm_fwd(ctx,
                   {.y = a.attn_in, .rstd = a.attn_rstd, .x = a.x, .weight = w.input_layernorm, .eps = eps});
  ops::matmul_nt(ctx, {.c = flat(a.qkv), .a = a.attn_in, .w = w.qkv_proj, .bias = w.qkv_bias});
  if (c.qk_norm) {
    for (const QkNorm& n : qk_norms(c, w))
      ops::rmsnorm_fwd(
          ctx, {.y = n.of(a.qk), .rstd = n.of(a.qk_rstd), .x = n.of(a.qkv), .weight = n.weight, .eps = eps});
  }
  ops::rope(ctx, {.x = a.qk, .cos_sin = cos_sin});
  const QkvHeads heads(c, a.qk, a.qkv);
  if (cache) {
    const Tensor &k_pages = cache->k_pages[layer_idx], &v_pages = cache->v_pages[layer_idx];
    ops::kv_write(ctx,
                  {.k_pages = k_pages, .v_pages = v_pages, .k = heads.k, .v = heads.v, .slots = batch.slots});
    ops::paged_attention(ctx, {.out = a.attn_out,
                               .q = heads.q,
                               .k_pages = k_pages,
                               .v_pages = v_pages,
                               .block_table = batch.block_table,
                               .cu_q = batch.cu_seqlens,
                               .kv_lens = batch.kv_lens,
                               .scale = softmax_scale(c)});
  } else {
    ops::attention_fwd(ctx, {.out = a.attn_out,
                             .lse = a.attn_lse,
                             .q = heads.q,
                             .k = heads.k,
                             .v = heads.v,
                             .cu_seqlens = batch.cu_seqlens,
                             .scale = softmax_scale(c)});
  }
  ops::matmul_nt(ctx, {.c = a.x_mid, .a = flat(a.attn_out), .w = w.o_proj, .bias = w.o_bias, .add = a.x});
}

void attention_block_bwd(ExecContext& ctx, const spec::ModelConfig& c, const LayerWeights& w,
                         const LayerWeights& dw, const Batch& batch, const Tensor& cos_sin,
                         const LayerActivations& a, const ActivationGrads& g) {
  const DType compute = w.o_proj.dtype;
  ops::matmul_nn(ctx, {.c = flat(g.dattn_out), .a = g.dx, .w = w.o_proj});
  ops::matmul_tn(ctx, {.c = dw.o_proj, .a = g.dx, .b = flat(a.attn_out), .compute = compute});
  if (w.o_bias) ops::bias_bwd(ctx, {.dbias = dw.o_bias, .dy = g.dx});

  const QkvHeads heads(c, a.qk, a.qkv);
  const QkvHeads dheads(c, g.dqk, g.dqkv);
  ops::attention_bwd(ctx, {.dq = dheads.q,
                           .dk = dheads.k,
                           .dv = dheads.v,
                           .dout = g.dattn_out,
                           .out = a.attn_out,
                           .lse = a.attn_lse,
                           .q = heads.q,
                           .k = heads.k,
                           .v = heads.v,
                           .cu_seqlens = batch.cu_seqlens,
                           .scale = softmax_scale(c)});
  ops::rope(ctx, {.x = g.dqk, .cos_sin = cos_sin, .inverse = true});
  if (c.qk_norm) {
    for (const QkNorm& n : qk_norms(c, w, dw))
      ops::rmsnorm_bwd(ctx, {.dx = n.of(g.dqkv),
                             .dweight = n.dweight,
                             .dy = n.of(g.dqk),
                             .x = n.of(a.qkv),
                             .weight = n.weight,
                             .rstd = n.of(a.qk_rstd)});
  }
  ops::matmul_tn(ctx, {.c = dw.qkv_proj, .a = flat(g.dqkv), .b = a.attn_in, .compute = compute});
  if (w.qkv_bias) ops::bias_bwd(ctx, {.dbias = dw.qkv_bias, .dy = flat(g.dqkv)});
  ops::matmul_nn(ctx, {.c = g.dnormed, .a = flat(g.dqkv), .w = w.qkv_proj});
  ops::rmsnorm_bwd(ctx, {.dx = g.dx,
                         .dweight = dw.input_layernorm,
                         .dy = g.dnormed,
                         .x = a.x,
                         .weight = w.input_layernorm,
                         .rstd = a.attn_rstd,
                         .add = g.dx});
}

}  // namespace moge::model
