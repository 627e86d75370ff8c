#include "ops/cpu/vec/combine.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

void fwd_row(float* y, const float* add, const float* rows, int64_t row_stride, const int32_t* slots,
             const float* weights, int64_t S, int64_t D) {
  for_lanes(D, [&](int64_t i, int64_t n) {
    F32 sum = add ? load_n(add + i, n) : splat(0);
    for (int64_t s = 0; s < S; ++s) {
      const F32 row = load_n(rows + slots[s] * row_stride + i, n);
      sum = weights ? fma(splat(weights[s]), row, sum) : sum + row;
    }
    store_n(y + i, sum, n);
  });
}

float bwd_row(float* drow, const float* dy, const float* row, float weight, int64_t D) {
  const F32 w = splat(weight);
  F32 dot = splat(0);
  for_lanes(D, [&](int64_t i, int64_t n) {
    const F32 d = load_n(dy + i, n);
    if (row) dot = fma(d, load_n(row + i, n), dot);
    store_n(drow + i, w * d, n);
  });
  return sum(dot);
}

}  // namespace

extern const CombineKernels combine{fwd_row, bwd_row};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
