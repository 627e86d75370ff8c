// Eight-bit rows for eight-bit products: symmetric, one scale per row. Bound by bandwidth.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// scale[r] = max|x[r]| / 127 (i8) or / 448 (fp8_e4m3), and q = x / scale rounded to nearest even. A row of
/// zeros has scale 0 and q 0.
struct QuantizeRows {
  Tensor q;      // [R, K] i8 | fp8_e4m3
  Tensor scale;  // [R] f32
  Tensor x;      // [R, K] f32 | bf16
};

/// The number that the largest element of a row becomes.
constexpr float largest_quantum(DType dtype) {
  return dtype == DType::kI8 ? 127.0F : kMaxFP8E4M3;
}

void quantize_rows(ExecContext& ctx, const QuantizeRows& args);
OpTable<QuantizeRows>& quantize_rows_table();

}  // namespace moge::ops
