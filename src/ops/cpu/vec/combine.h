// Row kernels of combine.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct CombineKernels {
  /// y[D] = add[D] + sum over s of weights[s] * rows[slots[s]][D]; add and weights may be null.
  void (*fwd_row)(float* y, const float* add, const float* rows, int64_t row_stride, const int32_t* slots,
                  const float* weights, int64_t S, int64_t D);
  /// drow[D] = weight * dy[D]; returns dot(dy, row), weight's gradient, or 0 when row is null.
  float (*bwd_row)(float* drow, const float* dy, const float* row, float weight, int64_t D);
};
namespace avx2 {
extern const CombineKernels combine;
}
namespace avx512 {
extern const CombineKernels combine;
}

}  // namespace moge::ops::cpu::vec
