// The language-model head and its loss in one op: logits = x @ w^T, loss = logsumexp(logits) -
// logits[target]. Loss and gradients come from one pass over blocks of tokens or chunks of the vocabulary, so
// the [T, V] logits of a long batch never exist at once (as in Liger's fused linear cross-entropy). Bound by
// compute.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

struct CrossEntropy {
  Tensor loss;           // [T] f32, nats (=); 0 where the target is -1
  Tensor dx;             // [T, D] f32 (=), optional
  Tensor dw;             // [V, D] f32 (+=), optional; present with dx
  Tensor x;              // [T, D] f32
  Tensor w;              // [V, D] f32 | bf16 (packed only without gradients); precision as in matmul.h
  Tensor targets;        // [T] i32 in -1..V-1; -1: no loss here
  float grad_scale = 1;  ///< gradients are those of grad_scale * sum of the losses
};

void cross_entropy(ExecContext& ctx, const CrossEntropy& args);
OpTable<CrossEntropy>& cross_entropy_table();

}  // namespace moge::ops
