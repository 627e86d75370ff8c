#include "ops/rope.h"

#include "core/match.h"
#include "ops/cpu/rope.h"

namespace moge::ops {

namespace {

void check_even(const char* op, int64_t head_dim) {
  check<ShapeError>(head_dim % 2 == 0, op, ": expected an even head dimension, got ", head_dim);
}

}  // namespace

void rope_table(ExecContext& ctx, const RopeTable& a) {
  Dim T("T"), Dh("Dh");
  match("rope_table", "cos_sin", a.cos_sin, {T, Dh}, DType::kF32);
  match("rope_table", "positions", a.positions, {T}, DType::kI32);
  check_even("rope_table", Dh);
  check<ShapeError>(a.theta > 0, "rope_table: expected theta > 0, got ", a.theta);
  dispatch(ctx, rope_table_table(), a);
}

void rope(ExecContext& ctx, const Rope& a) {
  Dim T("T"), H("H"), Dh("Dh");
  match("rope", "x", a.x, {T, H, Dh}, DType::kF32);
  match("rope", "cos_sin", a.cos_sin, {T, Dh}, DType::kF32);
  check_even("rope", Dh);
  dispatch(ctx, rope_op_table(), a);
}

OpTable<RopeTable>& rope_table_table() {
  static OpTable<RopeTable> table{"rope_table", cpu::rope_table_impls()};
  return table;
}

OpTable<Rope>& rope_op_table() {
  static OpTable<Rope> table{"rope", cpu::rope_impls()};
  return table;
}

}  // namespace moge::ops
