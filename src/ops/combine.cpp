#include "ops/combine.h"

#include "core/match.h"
#include "ops/cpu/combine.h"

namespace moge::ops {

void combine_fwd(ExecContext& ctx, const CombineFwd& a) {
  const char* op = "combine_fwd";
  Dim T("T"), D("D"), R("R"), S("S");
  match(op, "y", a.y, {T, D}, DType::kF32);
  match(op, "rows", a.rows, {R, D}, DType::kF32);
  match(op, "slot_row", a.slot_row, {T, S}, DType::kI32);
  if (a.weights) match(op, "weights", a.weights, {T, S}, DType::kF32);
  if (a.add) match(op, "add", a.add, {T, D}, DType::kF32);
  dispatch(ctx, combine_fwd_table(), a);
}

void combine_bwd(ExecContext& ctx, const CombineBwd& a) {
  const char* op = "combine_bwd";
  Dim T("T"), D("D"), R("R"), S("S");
  match(op, "dy", a.dy, {T, D}, DType::kF32);
  match(op, "drows", a.drows, {R, D}, DType::kF32);
  match(op, "slot_row", a.slot_row, {T, S}, DType::kI32);
  if (a.weights) {
    match(op, "weights", a.weights, {T, S}, DType::kF32);
    match(op, "dweights", a.dweights, {T, S}, DType::kF32);
    match(op, "rows", a.rows, {R, D}, DType::kF32);
  }
  dispatch(ctx, combine_bwd_table(), a);
}

OpTable<CombineFwd>& combine_fwd_table() {
  static OpTable<CombineFwd> table{"combine_fwd", cpu::combine_fwd_impls()};
  return table;
}

OpTable<CombineBwd>& combine_bwd_table() {
  static OpTable<CombineBwd> table{"combine_bwd", cpu::combine_bwd_impls()};
  return table;
}

}  // namespace moge::ops
