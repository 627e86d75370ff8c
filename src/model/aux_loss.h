// The router's auxiliary losses as a training step sees them. Eq. 8's counts and means are taken over
// segments: the whole optimizer step (batch level; with counts summed over ranks, global batch), or each
// sequence. Both reach beyond a micro-batch or stay inside a sequence, so the gradient does not depend on
// micro-batching.
#pragma once
#include <vector>

#include "core/exec_context.h"
#include "model/activations.h"

namespace moge::model {

struct AuxLoss {
  float balance_coef = 0;      ///< alpha of eq. 8, for each layer; 0: off
  float z_coef = 0;            ///< 0: off
  int64_t step_tokens = 0;     ///< tokens of the whole step
  int64_t step_segments = 1;   ///< segments of the whole step: 1, or its sequences
  Tensor segments;             // [S + 1] i32: this batch's rows in each segment, {0, T} or cu_seqlens
  Tensor segment_tokens;       // [S] i32: tokens of each whole segment, other micro-batches included
  std::vector<Tensor> counts;  // per layer [S, E] i32: selections in each whole segment
};

/// counts[l] += the selections of a forward pass, segment by segment.
void count_experts(ExecContext& ctx, const Activations& acts, const Tensor& segments,
                   const std::vector<Tensor>& counts);

}  // namespace moge::model
