#include "ops/silu_mul.h"

#include "core/match.h"
#include "ops/cpu/silu_mul.h"

namespace moge::ops {

namespace {

void match_rows(const char* op, const char* h_name, const Tensor& h, const Tensor& gate_up,
                const Tensor& row_weight) {
  Dim R("R"), F("F");
  match(op, h_name, h, {R, F}, DType::kF32);
  Dim F2("2F", 2 * F.value());
  match(op, "gate_up", gate_up, {R, F2}, DType::kF32);
  if (row_weight) match(op, "row_weight", row_weight, {R}, DType::kF32);
}

}  // namespace

void silu_mul_fwd(ExecContext& ctx, const SiluMulFwd& a) {
  match_rows("silu_mul_fwd", "h", a.h, a.gate_up, a.row_weight);
  dispatch(ctx, silu_mul_fwd_table(), a);
}

void silu_mul_bwd(ExecContext& ctx, const SiluMulBwd& a) {
  match_rows("silu_mul_bwd", "dh", a.dh, a.gate_up, a.row_weight);
  Dim R("R", a.gate_up.dim(0)), F2("2F", a.gate_up.dim(1));
  match("silu_mul_bwd", "dgate_up", a.dgate_up, {R, F2}, DType::kF32);
  check<ShapeError>(bool(a.row_weight) == bool(a.drow_weight),
                    "silu_mul_bwd: row_weight and drow_weight come together");
  if (a.drow_weight) match("silu_mul_bwd", "drow_weight", a.drow_weight, {R}, DType::kF32);
  dispatch(ctx, silu_mul_bwd_table(), a);
}

OpTable<SiluMulFwd>& silu_mul_fwd_table() {
  static OpTable<SiluMulFwd> table{"silu_mul_fwd", cpu::silu_mul_fwd_impls()};
  return table;
}

OpTable<SiluMulBwd>& silu_mul_bwd_table() {
  static OpTable<SiluMulBwd> table{"silu_mul_bwd", cpu::silu_mul_bwd_impls()};
  return table;
}

}  // namespace moge::ops
