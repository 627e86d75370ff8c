#include "ops/cpu/vec/rope.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// sin and cos of an angle below 2^31: reduced by multiples of pi/2 in double, then Cephes' fp32 polynomials
/// on
/// [-pi/4, pi/4]. Absolute error below 1e-7.
void sin_cos(float* sine, float* cosine, double angle) {
  constexpr double kTwoOverPi = 0.63661977236758134308;
  constexpr double kPiOver2 = 1.57079632679489661923;
  constexpr double kPiOver2Low = 6.12323399573676603587e-17;  // pi/2 - kPiOver2
  // Adding and subtracting 1.5 * 2^52 rounds to the nearest integer, which the low mantissa bits then hold.
  constexpr double kRound = 6755399441055744.0;
  const double rounded = angle * kTwoOverPi + kRound;
  int64_t bits;
  __builtin_memcpy(&bits, &rounded, sizeof bits);
  const auto quadrant = static_cast<int32_t>(bits);
  const double q = rounded - kRound;
  const auto r = static_cast<float>(__builtin_fma(-q, kPiOver2Low, __builtin_fma(-q, kPiOver2, angle)));
  const float r2 = r * r;
  const float s = r + r * r2 * (-1.6666654611e-1F + r2 * (8.3321608736e-3F - r2 * 1.9515295891e-4F));
  const float c =
      1 - 0.5F * r2 +
      r2 * r2 * (4.166664568298827e-2F + r2 * (-1.388731625493765e-3F + r2 * 2.443315711809948e-5F));
  const float sin_r = (quadrant & 1) ? c : s;
  const float cos_r = (quadrant & 1) ? s : c;
  *sine = (quadrant & 2) ? -sin_r : sin_r;
  *cosine = ((quadrant + 1) & 2) ? -cos_r : cos_r;
}

/// Branch-free per element, so the compiler turns the loop into vectors of doubles.
void table_row(float* __restrict cosines, float* __restrict sines, double position,
               const double* __restrict frequencies, int64_t half) {
  for (int64_t i = 0; i < half; ++i) sin_cos(sines + i, cosines + i, position * frequencies[i]);
}

void rotate_heads(float* x, int64_t head_stride, int64_t H, const float* cosines, const float* sines,
                  float sign, int64_t half) {
  const F32 direction = splat(sign);
  for (int64_t h = 0; h < H; ++h, x += head_stride) {
    for_lanes(half, [&](int64_t i, int64_t n) {
      const F32 a = load_n(x + i, n);
      const F32 b = load_n(x + half + i, n);
      const F32 c = load_n(cosines + i, n);
      const F32 s = direction * load_n(sines + i, n);
      store_n(x + i, a * c - b * s, n);
      store_n(x + half + i, fma(a, s, b * c), n);
    });
  }
}

}  // namespace

extern const RopeKernels rope{table_row, rotate_heads};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
