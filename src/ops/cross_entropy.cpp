#include "ops/cross_entropy.h"

#include "core/match.h"
#include "ops/cpu/cross_entropy.h"

namespace moge::ops {

void cross_entropy(ExecContext& ctx, const CrossEntropy& a) {
  const char* op = "cross_entropy";
  Dim T("T"), D("D"), V("V");
  match(op, "x", a.x, {T, D}, DType::kF32);
  match(op, "w", a.w, {V, D}, {DType::kF32, DType::kBF16});
  match(op, "targets", a.targets, {T}, DType::kI32);
  match(op, "loss", a.loss, {T}, DType::kF32);
  check<ShapeError>(bool(a.dx) == bool(a.dw), op, ": expected dx and dw both or neither");
  if (a.dx) match(op, "dx", a.dx, {T, D}, DType::kF32);
  if (a.dw) match(op, "dw", a.dw, {V, D}, DType::kF32);
  check<ShapeError>(!a.dx || a.w.layout == Layout::kStrided, op, ": w: gradients need an unpacked weight");
  dispatch(ctx, cross_entropy_table(), a);
}

OpTable<CrossEntropy>& cross_entropy_table() {
  static OpTable<CrossEntropy> table{"cross_entropy", cpu::cross_entropy_impls()};
  return table;
}

}  // namespace moge::ops
