// From the sums of serving's products to the elements of c, the same for every form of the weights.
#pragma once
#include "ops/cpu/vec/bf16.h"
#include "ops/cpu/vec/quant_matmul.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// h[n] from gate and up in blocks of eight: those of two vectors or, n <= kLanes / 2, of the first.
inline void silu_mul(uint16_t* h, F32 first, F32 second, float row_weight, int64_t n) {
#ifdef __AVX512F__
  const F32 gate = _mm512_shuffle_f32x4(first, second, 0x44);
  const F32 up = _mm512_shuffle_f32x4(first, second, 0xee);
#else
  const F32 gate = first, up = second;
#endif
  store_bf16_n(h, gate * sigmoid(gate) * up * splat(row_weight), n);
}

/// n sums of row i from column j on, scaled and with the bias.
inline F32 scaled(const QuantOutput& out, int i, int64_t j, int64_t n, F32 sums) {
  const F32 x = out.w_scale ? sums * load_n(out.w_scale + j, n) * splat(out.a_scale[i]) : sums;
  return out.bias ? x + load_n(out.bias + j, n) : x;
}
/// The same to c; not with silu_mul.
inline void finish(const QuantOutput& out, int i, int64_t j, int64_t n, F32 sums) {
  const F32 x = scaled(out, i, j, n, sums) * splat(out.row_weight[i]);
  if (out.c_bf16)
    store_bf16_n(static_cast<uint16_t*>(out.c[i]) + j, x, n);
  else
    store_n(static_cast<float*>(out.c[i]) + j, x, n);
}
/// Row i of `cols` columns; sums(j) has those from column j on, up to kQuantCols + kLanes.
template <class Sums>
void finish_row(const QuantOutput& out, int i, int64_t cols, const Sums& sums) {
  if (!out.silu_mul) return for_lanes(cols, [&](int64_t j, int64_t n) { finish(out, i, j, n, sums(j)); });
  alignas(64) float v[kQuantCols + kLanes] = {};
  for_lanes(cols, [&](int64_t j, int64_t n) { store(v + j, scaled(out, i, j, n, sums(j))); });
  for_lanes(cols / 2, [&](int64_t f, int64_t n) {
    silu_mul(static_cast<uint16_t*>(out.c[i]) + f, load(v + 2 * f), load(v + 2 * f + kLanes),
             out.row_weight[i], n);
  });
}

}  // namespace
}  // namespace moge::ops::cpu::vec::MOGE_ISA
