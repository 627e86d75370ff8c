// Row kernels of silu_mul.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct SiluMulKernels {
  /// h[F] = silu(gate[F]) * up[F] * weight.
  void (*fwd_row)(float* h, const float* gate, const float* up, float weight, int64_t F);
  /// dgate[F], dup[F] (=), which may be gate and up; returns sum(dh * silu(gate) * up), weight's gradient.
  float (*bwd_row)(float* dgate, float* dup, const float* dh, const float* gate, const float* up,
                   float weight, int64_t F);
};
namespace avx2 {
extern const SiluMulKernels silu_mul;
}
namespace avx512 {
extern const SiluMulKernels silu_mul;
}

}  // namespace moge::ops::cpu::vec
