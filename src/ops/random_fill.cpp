#include "ops/random_fill.h"

#include "ops/cpu/random_fill.h"

namespace moge::ops {

void random_fill(ExecContext& ctx, const RandomFill& a) {
  const char* op = "random_fill";
  check<ShapeError>(a.x.dtype == DType::kF32 || a.x.dtype == DType::kBF16 || a.x.dtype == DType::kF16 ||
                        a.x.dtype == DType::kI8 || a.x.dtype == DType::kFP8E4M3,
                    op, ": x: expected f32, bf16, f16, i8 or fp8_e4m3, got ", a.x.str());
  check<ShapeError>(a.x.is_contiguous(), op, ": x: expected a contiguous tensor, got ", a.x.str());
  dispatch(ctx, random_fill_table(), a);
}

OpTable<RandomFill>& random_fill_table() {
  static OpTable<RandomFill> table{"random_fill", cpu::random_fill_impls()};
  return table;
}

}  // namespace moge::ops
