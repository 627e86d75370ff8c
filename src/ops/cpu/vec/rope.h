// Row kernels of rope.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct RopeKernels {
  /// cosines[half], sines[half] of position * frequencies[half].
  void (*table_row)(float* cosines, float* sines, double position, const double* frequencies, int64_t half);
  /// Turns H heads of 2 * half elements, head_stride elements apart, by the angles; sign -1 turns back.
  void (*rotate_heads)(float* x, int64_t head_stride, int64_t H, const float* cosines, const float* sines,
                       float sign, int64_t half);
};
namespace avx2 {
extern const RopeKernels rope;
}
namespace avx512 {
extern const RopeKernels rope;
}

}  // namespace moge::ops::cpu::vec
