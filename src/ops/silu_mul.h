// SwiGLU's activation, h = silu(gate) * up (Shazeer, arXiv 2002.05202), optionally times a weight per row:
// the routing weight is applied here rather than to the down projection's output, which is the same by
// linearity and spares the backward the [R, D] rows. Bound by bandwidth.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

struct SiluMulFwd {
  Tensor h;           // [R, F] f32
  Tensor gate_up;     // [R, 2F] f32: gate, then up
  Tensor row_weight;  // [R] f32, optional
};
struct SiluMulBwd {
  Tensor dgate_up;     // [R, 2F] f32; may be gate_up itself
  Tensor drow_weight;  // [R] f32 (=), present when row_weight is
  Tensor dh;           // [R, F] f32
  Tensor gate_up;      // [R, 2F] f32
  Tensor row_weight;   // [R] f32, optional
};

void silu_mul_fwd(ExecContext& ctx, const SiluMulFwd& args);
void silu_mul_bwd(ExecContext& ctx, const SiluMulBwd& args);
OpTable<SiluMulFwd>& silu_mul_fwd_table();
OpTable<SiluMulBwd>& silu_mul_bwd_table();

}  // namespace moge::ops
