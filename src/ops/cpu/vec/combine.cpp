#include "ops/cpu/vec/combine.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// y[kVectors * kLanes]; the slots' rows are scattered, so each is read some lines at a time.
template <int64_t kVectors>
inline void fwd_columns(float* y, const float* add, const float* rows, int64_t row_stride,
                        const int32_t* slots, const float* weights, int64_t S) {
  F32 sums[kVectors];
  for (int64_t j = 0; j < kVectors; ++j) sums[j] = add ? load(add + j * kLanes) : splat(0);
  for (int64_t s = 0; s < S; ++s) {
    const float* row = rows + slots[s] * row_stride;
    const F32 w = splat(weights ? weights[s] : 1.0F);  // times 1 is exact
    for (int64_t j = 0; j < kVectors; ++j) sums[j] = fma(w, load(row + j * kLanes), sums[j]);
  }
  for (int64_t j = 0; j < kVectors; ++j) store(y + j * kLanes, sums[j]);
}

void fwd_row(float* y, const float* add, const float* rows, int64_t row_stride, const int32_t* slots,
             const float* weights, int64_t S, int64_t D) {
  constexpr int64_t kVectors = 8;
  int64_t i = 0;
  for (; i + kVectors * kLanes <= D; i += kVectors * kLanes)
    fwd_columns<kVectors>(y + i, add ? add + i : nullptr, rows + i, row_stride, slots, weights, S);
  for_lanes(D - i, [&](int64_t j, int64_t n) {
    F32 sum = add ? load_n(add + i + j, n) : splat(0);
    for (int64_t s = 0; s < S; ++s)
      sum = fma(splat(weights ? weights[s] : 1.0F), load_n(rows + slots[s] * row_stride + i + j, n), sum);
    store_n(y + i + j, sum, n);
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
