// The CPU implementations of ops/quantize.h, and rows as weights and serving store them for the ops that read
// or write such.
#pragma once
#include "ops/cpu/vec/stored_rows.h"
#include "ops/quantize.h"

namespace moge::ops::cpu {

std::vector<Impl<QuantizeRows>> quantize_rows_impls();

extern const vec::StoredRowKernels stored_rows_ref;

/// Quantises x[0, n) into the elements of q (i8 | fp8_e4m3) from `offset` on; returns their scale.
float quantize_row(const vec::StoredRowKernels& kernels, const Tensor& q, int64_t offset, const float* x,
                   int64_t n);
/// Rounds x[0, n) into the elements of `to` (f32, bf16 or f16) from `offset` on.
void store_row(const vec::StoredRowKernels& kernels, const Tensor& to, int64_t offset, const float* x,
               int64_t n);
/// The n elements of x (f32 | bf16) from `offset` on.
void load_row(const vec::StoredRowKernels& kernels, float* to, const Tensor& x, int64_t offset, int64_t n);

}  // namespace moge::ops::cpu
