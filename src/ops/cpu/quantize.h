// The CPU implementation of ops/quantize.h, and its row for the ops that end in one.
#pragma once
#include "ops/quantize.h"

namespace moge::ops::cpu {

std::vector<Impl<QuantizeRows>> quantize_rows_impls();

/// Quantises x[0, n) into the elements of q (i8 | fp8_e4m3) from `offset` on; returns their scale.
float quantize_row(const Tensor& q, int64_t offset, const float* x, int64_t n);

}  // namespace moge::ops::cpu
