#include "ops/residual_norm.h"

#include "core/match.h"
#include "ops/cpu/residual_norm.h"

namespace moge::ops {

void residual_norm(ExecContext& ctx, const ResidualNorm& a) {
  const char* op = "residual_norm";
  Dim T("T"), D("D"), R("R"), S("S");
  match(op, "x", a.x, {T, D}, DType::kF32);
  match(op, "weight", a.weight, {D}, DType::kF32);
  check<ShapeError>(bool(a.rows) == bool(a.slot_row), op, ": rows and slot_row come together");
  if (a.delta) match(op, "delta", a.delta, {T, D}, DType::kBF16);
  if (a.rows) match(op, "rows", a.rows, {R, D}, DType::kBF16);
  if (a.slot_row) match(op, "slot_row", a.slot_row, {T, S}, DType::kI32);
  check<ShapeError>(a.normed || a.q, op, ": expected an output, normed or q");
  check<ShapeError>(bool(a.q) == bool(a.q_scale), op, ": q and q_scale come together");
  if (a.normed) match(op, "normed", a.normed, {T, D}, DType::kBF16);
  if (a.q) match(op, "q", a.q, {T, D}, {DType::kI8, DType::kFP8E4M3});
  if (a.q_scale) match(op, "q_scale", a.q_scale, {T}, DType::kF32);
  dispatch(ctx, residual_norm_table(), a);
}

OpTable<ResidualNorm>& residual_norm_table() {
  static OpTable<ResidualNorm> table{"residual_norm", cpu::residual_norm_impls()};
  return table;
}

}  // namespace moge::ops
