#include "model/transformer.h"

#include "model/attention.h"
#include "model/moge.h"
#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/matmul.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"

namespace moge::model {

void transformer_fwd(ExecContext& ctx, const spec::ModelConfig& c, const Weights& w, const Batch& batch,
                     const KvCache* cache, const Activations& acts) {
  ops::rope_table(ctx, {.cos_sin = acts.cos_sin, .positions = batch.positions, .theta = c.rope_theta});
  ops::embedding_fwd(ctx, {.y = acts.layers[0].x, .weight = w.embed_tokens, .ids = batch.tokens});
  const auto L = static_cast<int64_t>(w.layers.size());
  for (int64_t l = 0; l < L; ++l) {
    const LayerActivations& a = acts.layers[l];
    const Tensor& x_out = l + 1 < L ? acts.layers[l + 1].x : acts.x;
    attention_block_fwd(ctx, c, w.layers[l], batch, acts.cos_sin, cache, l, a);
    moge_block_fwd(ctx, c, w.layers[l], a, acts.down, x_out);
  }
  ops::rmsnorm_fwd(ctx, {.y = acts.final,
                         .rstd = acts.rstd,
                         .x = acts.x,
                         .weight = w.norm,
                         .eps = static_cast<float>(c.rms_norm_eps)});
}

void head_fwd(ExecContext& ctx, const Weights& w, const Tensor& hidden, const Tensor& logits) {
  ops::matmul_nt(ctx, {.c = logits, .a = hidden, .w = w.lm_head});
}

void loss_fwd(ExecContext& ctx, const Weights& w, const Activations& acts, const Tensor& targets,
              const Tensor& loss) {
  ops::cross_entropy(ctx, {.loss = loss, .x = acts.final, .w = w.lm_head, .targets = targets});
}

void loss_and_bwd(ExecContext& ctx, const spec::ModelConfig& c, const Weights& w, const Weights& dw,
                  const Batch& batch, const Tensor& targets, float grad_scale, const AuxLoss& aux,
                  const Activations& acts, const ActivationGrads& g, const Tensor& loss) {
  ops::cross_entropy(ctx, {.loss = loss,
                           .dx = g.dnormed,
                           .dw = dw.lm_head,
                           .x = acts.final,
                           .w = w.lm_head,
                           .targets = targets,
                           .grad_scale = grad_scale});
  ops::rmsnorm_bwd(
      ctx,
      {.dx = g.dx, .dweight = dw.norm, .dy = g.dnormed, .x = acts.x, .weight = w.norm, .rstd = acts.rstd});
  for (auto l = static_cast<int64_t>(w.layers.size()) - 1; l >= 0; --l) {
    const LayerActivations& a = acts.layers[l];
    moge_block_bwd(ctx, c, w.layers[l], dw.layers[l], aux, l, a, g);
    attention_block_bwd(ctx, c, w.layers[l], dw.layers[l], batch, acts.cos_sin, a, g);
  }
  ops::embedding_bwd(ctx, {.dweight = dw.embed_tokens, .dy = g.dx, .ids = batch.tokens});
}

}  // namespace moge::model
