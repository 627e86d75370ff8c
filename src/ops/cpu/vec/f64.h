// Sums of fp32 vectors in double (see vec.h).
#pragma once
#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

#ifdef __AVX512F__
using F64 = __m512d;
inline F64 low_f64(F32 v) {
  return _mm512_cvtps_pd(_mm512_castps512_ps256(v));
}
inline F64 high_f64(F32 v) {
  return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
}
inline F64 fma(F64 a, F64 b, F64 c) {
  return _mm512_fmadd_pd(a, b, c);
}
#else
using F64 = __m256d;
inline F64 low_f64(F32 v) {
  return _mm256_cvtps_pd(_mm256_castps256_ps128(v));
}
inline F64 high_f64(F32 v) {
  return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}
inline F64 fma(F64 a, F64 b, F64 c) {
  return _mm256_fmadd_pd(a, b, c);
}
#endif

/// The sum of the squares of what was added, two partial sums a lane.
class SquareSum {
 public:
  void add(F32 v) {
    const F64 low = low_f64(v);
    const F64 high = high_f64(v);
    low_ = fma(low, low, low_);
    high_ = fma(high, high, high_);
  }
  double total() const {
    const F64 both = low_ + high_;
    double sum = 0;
    for (int64_t i = 0; i < kLanes / 2; ++i) sum += both[i];
    return sum;
  }

  /// 1 / sqrt(their mean over n + eps), in every lane.
  F32 inverse_rms(int64_t n, float eps) const {
    const double mean = total() / static_cast<double>(n);
    return splat(static_cast<float>(1 / __builtin_sqrt(mean + static_cast<double>(eps))));
  }

 private:
  F64 low_{}, high_{};
};

}  // namespace
}  // namespace moge::ops::cpu::vec::MOGE_ISA
