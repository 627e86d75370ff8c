// Unpermute: each token sums its slots' rows, in slot order (eq. 7). Bound by bandwidth.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// y[t] = add[t] + sum_s weights[t, s] * rows[slot_row[t, s]]. Without weights also the backward of a gather.
struct CombineFwd {
  Tensor y;         // [T, D] f32
  Tensor rows;      // [R, D] f32
  Tensor slot_row;  // [T, S] i32
  Tensor weights;   // [T, S] f32, optional
  Tensor add;       // [T, D] f32, optional (the residual stream); may be y itself
};
struct CombineBwd {
  Tensor drows;     // [R, D] f32 (=); each row belongs to one slot
  Tensor dweights;  // [T, S] f32 (=), present when weights is
  Tensor dy;        // [T, D] f32
  Tensor rows;      // [R, D] f32, present when weights is
  Tensor slot_row;  // [T, S] i32
  Tensor weights;   // [T, S] f32, optional
};

void combine_fwd(ExecContext& ctx, const CombineFwd& args);
void combine_bwd(ExecContext& ctx, const CombineBwd& args);
OpTable<CombineFwd>& combine_fwd_table();
OpTable<CombineBwd>& combine_bwd_table();

}  // namespace moge::ops
