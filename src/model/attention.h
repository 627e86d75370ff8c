// The attention block: x_mid = x + o_proj(attention(rope(qkv_proj(norm(x))))).
#pragma once
#include "core/exec_context.h"
#include "model/activations.h"
#include "model/batch.h"
#include "model/weights.h"

namespace moge::model {

/// Reads a.x, fills the attention part of `a` up to a.x_mid. `cache` (may be null) and `layer_idx` say where
/// keys and values go; without one the sequences attend only to themselves.
void attention_block_fwd(ExecContext& ctx, const spec::ModelConfig& config, const LayerWeights& w,
                         const Batch& batch, const Tensor& cos_sin, const KvCache* cache, int64_t layer_idx,
                         const LayerActivations& a);

/// Turns g.dx from the gradient of x_mid into that of x; adds the parameters' gradients to `dw`.
void attention_block_bwd(ExecContext& ctx, const spec::ModelConfig& config, const LayerWeights& w,
                         const LayerWeights& dw, const Batch& batch, const Tensor& cos_sin,
                         const LayerActivations& a, const ActivationGrads& g);

}  // namespace moge::model
