// One fp32 vector of the instruction set this file is being compiled for (see ops/cpu/cpu.cmake), and the few
// operations the kernels need. Only intrinsics and builtins: no STL here. Everything is internal to its file.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

#ifdef __AVX512F__
using F32 = __m512;
constexpr int64_t kLanes = 16;
inline F32 load(const float* p) {
  return _mm512_loadu_ps(p);
}
inline void store(float* p, F32 v) {
  _mm512_storeu_ps(p, v);
}
/// Past the caches, in no order with other stores; aligned.
inline void stream(float* p, F32 v) {
  _mm512_stream_ps(p, v);
}
inline F32 splat(float x) {
  return _mm512_set1_ps(x);
}
/// a * b + c, rounded once.
inline F32 fma(F32 a, F32 b, F32 c) {
  return _mm512_fmadd_ps(a, b, c);
}
inline F32 max(F32 a, F32 b) {
  return _mm512_max_ps(a, b);
}
inline F32 min(F32 a, F32 b) {
  return _mm512_min_ps(a, b);
}
inline F32 sqrt(F32 a) {
  return _mm512_sqrt_ps(a);
}
/// The first n lanes (0 <= n < kLanes), zero elsewhere.
inline F32 load_first(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << n) - 1), p);
}
inline void store_first(float* p, F32 v, int64_t n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1U << n) - 1), v);
}
inline float sum(F32 v) {
  return _mm512_reduce_add_ps(v);
}
inline float max_of(F32 v) {
  return _mm512_reduce_max_ps(v);
}
/// 2^k * v for integral k in fp32 range.
inline F32 scale2(F32 v, F32 k) {
  return _mm512_scalef_ps(v, k);
}
inline F32 round(F32 v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else
using F32 = __m256;
constexpr int64_t kLanes = 8;
inline F32 load(const float* p) {
  return _mm256_loadu_ps(p);
}
inline void store(float* p, F32 v) {
  _mm256_storeu_ps(p, v);
}
inline void stream(float* p, F32 v) {
  _mm256_stream_ps(p, v);
}
inline F32 splat(float x) {
  return _mm256_set1_ps(x);
}
inline F32 fma(F32 a, F32 b, F32 c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline F32 max(F32 a, F32 b) {
  return _mm256_max_ps(a, b);
}
inline F32 min(F32 a, F32 b) {
  return _mm256_min_ps(a, b);
}
inline F32 sqrt(F32 a) {
  return _mm256_sqrt_ps(a);
}
inline __m256i first_mask(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline F32 load_first(const float* p, int64_t n) {
  return _mm256_maskload_ps(p, first_mask(n));
}
inline void store_first(float* p, F32 v, int64_t n) {
  _mm256_maskstore_ps(p, first_mask(n), v);
}
inline float sum(F32 v) {
  const __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 t = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}
inline float max_of(F32 v) {
  const __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 t = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(t, _mm_movehdup_ps(t)));
}
inline F32 scale2(F32 v, F32 k) {
  // Two steps, so that results down to the subnormals and up to the largest float come out right.
  const __m256i i = _mm256_cvtps_epi32(k);
  const __m256i half = _mm256_srai_epi32(i, 1);
  const auto pow2 = [](__m256i e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
  };
  return v * pow2(half) * pow2(_mm256_sub_epi32(i, half));
}
inline F32 round(F32 v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#endif

/// e^x, relative error below 2 ulp (Cephes' polynomial after reduction by ln 2); 0 below -104, inf above 89.
inline F32 exp(F32 x) {
  x = min(splat(89.0F), max(splat(-104.0F), x));  // x second: the instructions then hand NaN on
  const F32 k = round(x * splat(1.44269504088896341F));
  F32 r = fma(k, splat(-0.693359375F), x);
  r = fma(k, splat(2.12194440e-4F), r);
  F32 p = splat(1.9875691500e-4F);
  p = fma(p, r, splat(1.3981999507e-3F));
  p = fma(p, r, splat(8.3334519073e-3F));
  p = fma(p, r, splat(4.1665795894e-2F));
  p = fma(p, r, splat(1.6666665459e-1F));
  p = fma(p, r, splat(5.0000001201e-1F));
  p = fma(p, r * r, r) + splat(1.0F);
  return scale2(p, k);
}
inline F32 sigmoid(F32 x) {
  return splat(1.0F) / (splat(1.0F) + exp(splat(0.0F) - x));
}

inline F32 load_n(const float* p, int64_t n) {
  return n == kLanes ? load(p) : load_first(p, n);
}
inline void store_n(float* p, F32 v, int64_t n) {
  n == kLanes ? store(p, v) : store_first(p, v, n);
}
/// body(i, lanes) over [0, n): whole vectors (lanes = kLanes), then one remainder for load_n and store_n.
template <class Body>
inline __attribute__((always_inline)) void for_lanes(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
  if (i < n) body(i, n - i);
}

}  // namespace
}  // namespace moge::ops::cpu::vec::MOGE_ISA
