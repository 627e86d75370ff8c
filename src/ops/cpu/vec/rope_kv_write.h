// Head kernels of rope_kv_write.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct RopeKvWriteKernels {
  /// x[Dh] / rms(x) * weight.
  void (*norm)(float* x, const float* weight, int64_t Dh, float eps);
  /// Turns x[Dh] by the angles of cos_sin[Dh]: cosines, then sines.
  void (*turn)(float* x, const float* cos_sin, int64_t Dh);
};
namespace avx2 {
extern const RopeKvWriteKernels rope_kv_write;
}
namespace avx512 {
extern const RopeKvWriteKernels rope_kv_write;
}

}  // namespace moge::ops::cpu::vec
