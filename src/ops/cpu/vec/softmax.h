// Row kernels of a softmax over a vocabulary, for the loss and for sampling.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

/// exp(x_i - max) summed; the log sum exp of the row is max + log(sum).
struct SoftmaxStats {
  float max, sum;
};
struct SoftmaxKernels {
  SoftmaxStats (*stats)(const float* x, int64_t n);  ///< n > 0
  /// x[i] = exp(x[i] - max) * factor.
  void (*scaled_exp)(float* x, int64_t n, float max, float factor);
};
namespace avx2 {
extern const SoftmaxKernels softmax;
}
namespace avx512 {
extern const SoftmaxKernels softmax;
}

}  // namespace moge::ops::cpu::vec
