// Block kernels of adamw and sum_squares.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

/// One step's scalars (Loshchilov & Hutter, algorithm 2), ready to multiply with.
struct AdamWStep {
  float decay;  ///< 1 - lr * weight_decay
  float beta1, beta2;
  float one_minus_beta1, one_minus_beta2;
  float step_size;       ///< lr / (1 - beta1^step)
  float inv_sqrt_bias2;  ///< 1 / sqrt(1 - beta2^step)
  float eps;
  float grad_scale;
};
struct AdamWKernels {
  /// Updates param, m and v [n]; param_bf16 [n] gets the rounded result unless null.
  void (*update)(float* param, uint16_t* param_bf16, float* m, float* v, const float* grad,
                 const AdamWStep& step, int64_t n);
  /// Sum of x[n]^2 in double.
  double (*sum_squares)(const float* x, int64_t n);
};
namespace avx2 {
extern const AdamWKernels adamw;
}
namespace avx512 {
extern const AdamWKernels adamw;
}

}  // namespace moge::ops::cpu::vec
