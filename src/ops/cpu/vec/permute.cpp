#include "ops/cpu/vec/permute.h"

#include "ops/cpu/vec/ids.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

int64_t gather(float* y, const float* x, const int32_t* ids, int64_t y_stride, int64_t ids_stride, int64_t R,
               int64_t T, int64_t K) {
  return for_ids(
      ids, ids_stride, R, T, K,
      [&](int64_t t, int64_t k, const int32_t* id) {
        _mm_storeu_ps(y + t * y_stride + k, _mm_setr_ps(x[id[0]], x[id[1]], x[id[2]], x[id[3]]));
      },
      [&](int64_t t, int64_t k, int32_t id) { y[t * y_stride + k] = x[id]; });
}

}  // namespace

extern const PermuteKernels permute{gather};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
