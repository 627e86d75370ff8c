// The whole decoder: embedding, L x (attention, MoGE), norm, head. Forward and backward are lists of blocks;
// the memory of both is planned from the same code (core/exec_context.h, `planning`).
#pragma once
#include "core/exec_context.h"
#include "model/activations.h"
#include "model/aux_loss.h"
#include "model/batch.h"
#include "model/weights.h"

namespace moge::model {

/// Tokens to normed hidden states: acts.final [T, D]. `cache` is null in training.
void transformer_fwd(ExecContext& ctx, const spec::ModelConfig& config, const Weights& w, const Batch& batch,
                     const KvCache* cache, const Activations& acts);

/// logits = hidden @ lm_head^T for chosen rows: hidden [N, D], logits [N, V] f32.
void head_fwd(ExecContext& ctx, const Weights& w, const Tensor& hidden, const Tensor& logits);

/// loss [T]: each token's cross-entropy against targets [T] i32 (-1: none, 0 loss). Evaluation.
void loss_fwd(ExecContext& ctx, const Weights& w, const Activations& acts, const Tensor& targets,
              const Tensor& loss);

/// After transformer_fwd: fills `loss` as above and adds the gradient of grad_scale * sum(loss) + auxiliary
/// losses to `dw`. Overwrites parts of `acts`.
void loss_and_bwd(ExecContext& ctx, const spec::ModelConfig& config, const Weights& w, const Weights& dw,
                  const Batch& batch, const Tensor& targets, float grad_scale, const AuxLoss& aux,
                  const Activations& acts, const ActivationGrads& grads, const Tensor& loss);

}  // namespace moge::model
