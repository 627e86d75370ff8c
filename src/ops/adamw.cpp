#include "ops/adamw.h"

#include "core/match.h"
#include "ops/cpu/adamw.h"

namespace moge::ops {

void adamw(ExecContext& ctx, const AdamW& a) {
  Dim n("n");
  match("adamw", "param", a.param, {n}, DType::kF32);
  match("adamw", "grad", a.grad, {n}, DType::kF32);
  match("adamw", "m", a.m, {n}, DType::kF32);
  match("adamw", "v", a.v, {n}, DType::kF32);
  if (a.param_bf16) match("adamw", "param_bf16", a.param_bf16, {n}, DType::kBF16);
  check<ShapeError>(a.step >= 1, "adamw: expected step >= 1, got ", a.step);
  dispatch(ctx, adamw_table(), a);
}

void sum_squares(ExecContext& ctx, const SumSquares& a) {
  Dim one("1", 1), n("n");
  match("sum_squares", "sum", a.sum, {one}, DType::kF32);
  match("sum_squares", "x", a.x, {n}, DType::kF32);
  dispatch(ctx, sum_squares_table(), a);
}

OpTable<AdamW>& adamw_table() {
  static OpTable<AdamW> table{"adamw", cpu::adamw_impls()};
  return table;
}

OpTable<SumSquares>& sum_squares_table() {
  static OpTable<SumSquares> table{"sum_squares", cpu::sum_squares_impls()};
  return table;
}

}  // namespace moge::ops
