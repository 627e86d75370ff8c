#include "ops/quantize.h"

#include "core/match.h"
#include "ops/cpu/quantize.h"

namespace moge::ops {

void quantize_rows(ExecContext& ctx, const QuantizeRows& a) {
  const char* op = "quantize_rows";
  Dim R("R"), K("K");
  match(op, "x", a.x, {R, K}, {DType::kF32, DType::kBF16});
  match(op, "q", a.q, {R, K}, {DType::kI8, DType::kFP8E4M3});
  match(op, "scale", a.scale, {R}, DType::kF32);
  dispatch(ctx, quantize_rows_table(), a);
}

OpTable<QuantizeRows>& quantize_rows_table() {
  static OpTable<QuantizeRows> table{"quantize_rows", cpu::quantize_rows_impls()};
  return table;
}

}  // namespace moge::ops
