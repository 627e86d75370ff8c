// bf16 in memory (uint16_t: no core header here, see vec.h), fp32 in registers. Rounding as to_bf16
// (core/dtype.h): to nearest even, NaN stays NaN, subnormals stay (vcvtneps2bf16 would flush them).
#pragma once
#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

#ifdef __AVX512F__
inline F32 widen(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline F32 load_bf16_n(const uint16_t* p, int64_t n) {
  return widen(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1U << n) - 1), p));
}
inline void store_bf16_n(uint16_t* p, F32 v, int64_t n) {
  const __m512i u = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1U << n) - 1),
                           _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}
#else
inline F32 widen(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline F32 load_bf16_n(const uint16_t* p, int64_t n) {
  if (n == kLanes) return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  alignas(16) uint16_t lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return widen(_mm_load_si128(reinterpret_cast<const __m128i*>(lanes)));
}
inline void store_bf16_n(uint16_t* p, F32 v, int64_t n) {
  const __m256i u = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  const F32 r = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet),
                                 _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(r), 16);
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  if (n == kLanes) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
  alignas(16) uint16_t lanes[kLanes];
  _mm_store_si128(reinterpret_cast<__m128i*>(lanes), packed);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
#endif

}  // namespace
}  // namespace moge::ops::cpu::vec::MOGE_ISA
