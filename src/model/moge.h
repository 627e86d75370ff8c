// The Mixture of Grouped Experts block (arXiv 2505.21411, eq. 5-8): x_out = x_mid + sum of the chosen experts
// and the shared ones, over norm(x_mid). A dense MLP is the case without a router: one expert that sees every
// token.
#pragma once
#include "core/exec_context.h"
#include "model/activations.h"
#include "model/aux_loss.h"
#include "model/weights.h"

namespace moge::model {

/// Reads a.x_mid, fills the rest of `a`, writes x_out. `down` is scratch, [R, D].
void moge_block_fwd(ExecContext& ctx, const spec::ModelConfig& config, const LayerWeights& w,
                    const LayerActivations& a, const Tensor& down, const Tensor& x_out);

/// Turns g.dx from the gradient of x_out into that of x_mid, the auxiliary losses included, whose values go
/// to g.balance_loss[layer_idx] and g.z_loss[layer_idx]; adds the parameters' gradients to `dw`. Overwrites
/// a.gate_up.
void moge_block_bwd(ExecContext& ctx, const spec::ModelConfig& config, const LayerWeights& w,
                    const LayerWeights& dw, const AuxLoss& aux, int64_t layer_idx, const LayerActivations& a,
                    const ActivationGrads& g);

}  // namespace moge::model
