// AdamW (Loshchilov & Hutter, arXiv 1711.05101), as torch.optim.AdamW computes it. Bound by bandwidth.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

struct AdamW {
  Tensor param;       // [n] f32: the master weights
  Tensor param_bf16;  // [n] bf16, optional: the rounded copy that the model computes with
  Tensor m;           // [n] f32
  Tensor v;           // [n] f32
  Tensor grad;        // [n] f32
  float lr = 0;
  float beta1 = 0.9F;
  float beta2 = 0.95F;
  float eps = 1e-8F;
  float weight_decay = 0;
  float grad_scale = 1;  ///< the gradient is multiplied by this first (clipping)
  int64_t step = 1;      ///< 1 for the first update
};
/// sum[0] = sum of x^2, accumulated in double over blocks of fixed size.
struct SumSquares {
  Tensor sum;  // [1] f32
  Tensor x;    // [n] f32
};

void adamw(ExecContext& ctx, const AdamW& args);
void sum_squares(ExecContext& ctx, const SumSquares& args);
OpTable<AdamW>& adamw_table();
OpTable<SumSquares>& sum_squares_table();

}  // namespace moge::ops
