// Row kernels of rmsnorm.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct RmsnormKernels {
  /// y[D], *rstd (may be null) from x[D].
  void (*fwd_row)(float* y, float* rstd, const float* x, const float* weight, int64_t D, float eps);
  /// dx[D] (=), dweight[D] (+=); add may be null.
  void (*bwd_row)(float* dx, float* dweight, const float* dy, const float* x, const float* weight, float rstd,
                  const float* add, int64_t D);
};
namespace avx2 {
extern const RmsnormKernels rmsnorm;
}
namespace avx512 {
extern const RmsnormKernels rmsnorm;
}

}  // namespace moge::ops::cpu::vec
