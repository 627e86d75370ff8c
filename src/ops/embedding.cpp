#include "ops/embedding.h"

#include "core/match.h"
#include "ops/cpu/embedding.h"

namespace moge::ops {

void embedding_fwd(ExecContext& ctx, const EmbeddingFwd& a) {
  Dim T("T"), D("D"), V("V");
  match("embedding_fwd", "y", a.y, {T, D}, DType::kF32);
  match("embedding_fwd", "weight", a.weight, {V, D}, {DType::kF32, DType::kBF16});
  match("embedding_fwd", "ids", a.ids, {T}, DType::kI32);
  dispatch(ctx, embedding_fwd_table(), a);
}

void embedding_bwd(ExecContext& ctx, const EmbeddingBwd& a) {
  Dim T("T"), D("D"), V("V");
  match("embedding_bwd", "dweight", a.dweight, {V, D}, DType::kF32);
  match("embedding_bwd", "dy", a.dy, {T, D}, DType::kF32);
  match("embedding_bwd", "ids", a.ids, {T}, DType::kI32);
  dispatch(ctx, embedding_bwd_table(), a);
}

OpTable<EmbeddingFwd>& embedding_fwd_table() {
  static OpTable<EmbeddingFwd> table{"embedding_fwd", cpu::embedding_fwd_impls()};
  return table;
}

OpTable<EmbeddingBwd>& embedding_bwd_table() {
  static OpTable<EmbeddingBwd> table{"embedding_bwd", cpu::embedding_bwd_impls()};
  return table;
}

}  // namespace moge::ops
