#include "model/moge.h"

#include "ops/balance_loss.h"
#include "ops/combine.h"
#include "ops/group_router.h"
#include "ops/matmul.h"
#include "ops/permute.h"
#include "ops/rmsnorm.h"
#include "ops/silu_mul.h"

namespace moge::model {

void moge_block_fwd(ExecContext& ctx, const spec::ModelConfig& c, const LayerWeights& w,
                    const LayerActivations& a, const Tensor& down, const Tensor& x_out) {
  ops::rmsnorm_fwd(ctx, {.y = a.mlp_in,
                         .rstd = a.mlp_rstd,
                         .x = a.x_mid,
                         .weight = w.post_attention_layernorm,
                         .eps = static_cast<float>(c.rms_norm_eps)});
  if (c.is_moe()) {
    ops::matmul_nt(ctx, {.c = a.router_logits, .a = a.mlp_in, .w = w.gate});
    ops::group_router_fwd(ctx, {.topk_ids = a.topk_ids,
                                .topk_weights = a.topk_weights,
                                .probs = a.router_probs,
                                .lse = a.router_lse,
                                .logits = a.router_logits,
                                .router_scale = w.router_scale,
                                .num_groups = static_cast<int>(c.num_expert_groups),
                                .renormalize = c.norm_topk_prob});
  }
  ops::permute_fwd(ctx, {.offsets = a.offsets,
                         .row_token = a.row_token,
                         .row_weight = a.row_weight,
                         .slot_row = a.slot_row,
                         .topk_ids = a.topk_ids,
                         .topk_weights = a.topk_weights});
  ops::matmul_nt(
      ctx,
      {.c = a.gate_up, .a = a.mlp_in, .w = w.gate_up_proj, .offsets = a.offsets, .row_ids = a.row_token});
  ops::silu_mul_fwd(ctx, {.h = a.h, .gate_up = a.gate_up, .row_weight = a.row_weight});
  ops::matmul_nt(ctx, {.c = down, .a = a.h, .w = w.down_proj, .offsets = a.offsets});
  ops::combine_fwd(ctx, {.y = x_out, .rows = down, .slot_row = a.slot_row, .add = a.x_mid});
}

namespace {

/// From g.drow_weight to the router's weights, and to its input's gradient, which adds to g.dnormed.
void router_bwd(ExecContext& ctx, const spec::ModelConfig& c, const LayerWeights& w, const LayerWeights& dw,
                const AuxLoss& aux, int64_t layer_idx, const LayerActivations& a, const ActivationGrads& g) {
  ops::permute_bwd(ctx,
                   {.dtopk_weights = g.dtopk_weights, .drow_weight = g.drow_weight, .slot_row = a.slot_row});
  Tensor dprobs, dlse;  // absent when the loss is off
  if (aux.balance_coef != 0) {
    dprobs = g.dprobs;
    ops::balance_loss(ctx, {.loss = g.balance_loss.slice(0, layer_idx, layer_idx + 1),
                            .dprobs = dprobs,
                            .probs = a.router_probs,
                            .counts = aux.counts[layer_idx],
                            .segment_tokens = aux.segment_tokens,
                            .segments = aux.segments,
                            .topk = static_cast<int>(c.num_experts_per_tok),
                            .weight = aux.balance_coef / static_cast<float>(aux.step_segments)});
  }
  if (aux.z_coef != 0) {
    dlse = g.dlse;
    ops::z_loss(ctx, {.loss = g.z_loss.slice(0, layer_idx, layer_idx + 1),
                      .dlse = dlse,
                      .lse = a.router_lse,
                      .weight = aux.z_coef / static_cast<float>(aux.step_tokens)});
  }
  ops::group_router_bwd(ctx, {.dlogits = g.dlogits,
                              .drouter_scale = dw.router_scale,
                              .dtopk_weights = g.dtopk_weights,
                              .dprobs = dprobs,
                              .dlse = dlse,
                              .topk_ids = a.topk_ids,
                              .probs = a.router_probs,
                              .router_scale = w.router_scale,
                              .renormalize = c.norm_topk_prob});
  ops::matmul_tn(ctx, {.c = dw.gate, .a = g.dlogits, .b = a.mlp_in, .compute = w.gate.dtype});
  ops::matmul_nn(ctx, {.c = g.dnormed, .a = g.dlogits, .w = w.gate, .add = g.dnormed});
}

}  // namespace

void moge_block_bwd(ExecContext& ctx, const spec::ModelConfig& c, const LayerWeights& w,
                    const LayerWeights& dw, const AuxLoss& aux, int64_t layer_idx, const LayerActivations& a,
                    const ActivationGrads& g) {
  const DType compute = w.down_proj.dtype;
  // combine: every row of a token receives dx, which the products gather.
  ops::matmul_nn(ctx, {.c = g.dh, .a = g.dx, .w = w.down_proj, .offsets = a.offsets, .row_ids = a.row_token});
  ops::matmul_tn(ctx, {.c = dw.down_proj,
                       .a = g.dx,
                       .b = a.h,
                       .offsets = a.offsets,
                       .a_row_ids = a.row_token,
                       .compute = compute});
  ops::silu_mul_bwd(ctx, {.dgate_up = a.gate_up,
                          .drow_weight = g.drow_weight,
                          .dh = g.dh,
                          .gate_up = a.gate_up,
                          .row_weight = a.row_weight});
  ops::matmul_tn(ctx, {.c = dw.gate_up_proj,
                       .a = a.gate_up,
                       .b = a.mlp_in,
                       .offsets = a.offsets,
                       .b_row_ids = a.row_token,
                       .compute = compute});
  ops::matmul_nn(ctx, {.c = g.drows, .a = a.gate_up, .w = w.gate_up_proj, .offsets = a.offsets});
  ops::combine_fwd(ctx, {.y = g.dnormed, .rows = g.drows, .slot_row = a.slot_row});
  if (c.is_moe()) router_bwd(ctx, c, w, dw, aux, layer_idx, a, g);
  ops::rmsnorm_bwd(ctx, {.dx = g.dx,
                         .dweight = dw.post_attention_layernorm,
                         .dy = g.dnormed,
                         .x = a.x_mid,
                         .weight = w.post_attention_layernorm,
                         .rstd = a.mlp_rstd,
                         .add = g.dx});
}

}  // namespace moge::model
