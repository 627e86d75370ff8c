// Root-mean-square normalisation, y = x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich, arXiv
// 1910.07467). Bound by bandwidth. Also normalises heads (QK-norm): rows of [T, H, Dh].
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

struct RmsnormFwd {
  Tensor y;       // [T, D] or [T, H, D] f32; may be x itself
  Tensor rstd;    // [T] or [T, H] f32, 1 / sqrt(mean(x^2) + eps); optional, needed by the
                  // backward; tokens may be strided
  Tensor x;       // [T, D] or [T, H, D] f32
  Tensor weight;  // [D] f32
  float eps = 1e-5F;
};
/// dx = add + the gradient of x; dweight accumulates.
struct RmsnormBwd {
  Tensor dx;       // like x
  Tensor dweight;  // [D] f32, += ; rows summed in fixed blocks
  Tensor dy;       // like x
  Tensor x;        // [T, D] or [T, H, D] f32
  Tensor weight;   // [D] f32
  Tensor rstd;     // [T] or [T, H] f32
  Tensor add;      // like x, optional: the residual stream's gradient; may be dx itself
};

void rmsnorm_fwd(ExecContext& ctx, const RmsnormFwd& args);
void rmsnorm_bwd(ExecContext& ctx, const RmsnormBwd& args);
OpTable<RmsnormFwd>& rmsnorm_fwd_table();
OpTable<RmsnormBwd>& rmsnorm_bwd_table();

}  // namespace moge::ops
