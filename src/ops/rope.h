// Rotary positions (Su et al., arXiv 2104.09864), the "rotate half" convention over the whole head: element i
// turns with element i + Dh/2 by the angle position * theta^(-2i/Dh). Bound by bandwidth.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// The cosines and sines of a batch, once per forward. Angles are computed in double.
struct RopeTable {
  Tensor cos_sin;    // [T, Dh] f32: Dh/2 cosines, then Dh/2 sines
  Tensor positions;  // [T] i32
  double theta = 10000.0;
};
/// x is rotated in place; `inverse` rotates back, which is also the backward.
struct Rope {
  Tensor x;        // [T, H, Dh] f32, Dh even; rows may be strided (a slice of a fused qkv)
  Tensor cos_sin;  // [T, Dh] f32
  bool inverse = false;
};

void rope_table(ExecContext& ctx, const RopeTable& args);
void rope(ExecContext& ctx, const Rope& args);
OpTable<RopeTable>& rope_table_table();
OpTable<Rope>& rope_op_table();

}  // namespace moge::ops
