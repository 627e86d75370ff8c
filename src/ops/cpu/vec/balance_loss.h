// Kernels of expert_counts, balance_loss and z_loss.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct BalanceLossKernels {
  /// counts[ids[t, k]] += 1 for T tokens of K, rows ids_stride elements apart. Stops at the first token with
  /// an id outside 0..E-1, which may be counted in part; returns how many came before.
  int64_t (*count)(int32_t* counts, const int32_t* ids, int64_t ids_stride, int64_t E, int64_t T, int64_t K);
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
