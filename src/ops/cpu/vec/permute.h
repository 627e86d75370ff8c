// Kernel of permute_bwd.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct PermuteKernels {
  /// y[t, k] = x[ids[t, k]] for T tokens of K, rows y_stride and ids_stride elements apart. Stops at the
  /// first token with an id outside 0..R-1, whose row of y is then undefined; returns how many came before.
  int64_t (*gather)(float* y, const float* x, const int32_t* ids, int64_t y_stride, int64_t ids_stride,
                    int64_t R, int64_t T, int64_t K);
};
namespace avx2 {
extern const PermuteKernels permute;
}
namespace avx512 {
extern const PermuteKernels permute;
}

}  // namespace moge::ops::cpu::vec
