// Row kernels of balance_loss and z_loss.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct BalanceLossKernels {
  /// dot(probs[E], factors[E]).
  float (*dot_row)(const float* probs, const float* factors, int64_t E);
  /// Sum of lse[n]^2; dlse[n] = factor * lse[n] unless null.
  double (*z_block)(float* dlse, const float* lse, float factor, int64_t n);
};
namespace avx2 {
extern const BalanceLossKernels balance_loss;
}
namespace avx512 {
extern const BalanceLossKernels balance_loss;
}

}  // namespace moge::ops::cpu::vec
