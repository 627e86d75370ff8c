// Loops that do one thing as fast as the core can: what ops/machine.h times.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct MachineKernels {
  /// `rounds` rounds of fp32 fused multiply-adds on registers; the result keeps them alive.
  float (*fma_f32)(int64_t rounds);
  double fma_f32_flops;  ///< of one round
  /// The same with bf16 pair dots (vdpbf16ps); null where the instruction set has none.
  float (*dot_bf16)(int64_t rounds);
  double dot_bf16_flops;
  /// The same with dots of four bytes (vpdpbusd), two operations a product; null where there is none.
  float (*dot_i8)(int64_t rounds);
  double dot_i8_ops;
  /// Sum of p[n]; n is a multiple of 128, as below.
  float (*read)(const float* p, int64_t n);
  /// to[n] = from[n].
  void (*copy)(float* to, const float* from, int64_t n);
  /// to[n] = a[n] + 3 * b[n].
  void (*triad)(float* to, const float* a, const float* b, int64_t n);
};
namespace avx2 {
extern const MachineKernels machine;
}
namespace avx512 {
extern const MachineKernels machine;
}

}  // namespace moge::ops::cpu::vec
