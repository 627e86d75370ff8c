// Token embedding: a gather of rows. Bound by bandwidth.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// y[t] = weight[ids[t]].
struct EmbeddingFwd {
  Tensor y;       // [T, D] f32
  Tensor weight;  // [V, D] f32 | bf16, strided or packed (a tied head is packed)
  Tensor ids;     // [T] i32, each in 0..V-1 (else ShapeError naming the position; a GPU, which cannot tell,
                  // writes a row of NaN)
};
/// dweight[ids[t]] += dy[t], tokens added in order.
struct EmbeddingBwd {
  Tensor dweight;  // [V, D] f32
  Tensor dy;       // [T, D] f32
  Tensor ids;      // [T] i32
};

void embedding_fwd(ExecContext& ctx, const EmbeddingFwd& args);
void embedding_bwd(ExecContext& ctx, const EmbeddingBwd& args);
OpTable<EmbeddingFwd>& embedding_fwd_table();
OpTable<EmbeddingBwd>& embedding_bwd_table();

}  // namespace moge::ops
