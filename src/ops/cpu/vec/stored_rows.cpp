#include "ops/cpu/vec/stored_rows.h"

#include "ops/cpu/vec/bf16.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// q[n] = v to nearest even, 0 for NaN; n <= kLanes.
inline void store_i8_n(int8_t* q, F32 v, int64_t n) {
  v = min(splat(127), max(splat(-127), v));
#ifdef __AVX512F__
  const __m512i all = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(v, v, _CMP_ORD_Q), v);
  _mm_mask_storeu_epi8(q, static_cast<__mmask16>((1U << n) - 1), _mm512_cvtepi32_epi8(all));
#else
  const __m256i all = _mm256_cvtps_epi32(_mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q)));
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  alignas(16) int8_t bytes[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(bytes), _mm_packs_epi16(words, words));
  __builtin_memcpy(q, bytes, static_cast<uint64_t>(n));
#endif
}

float to_i8(int8_t* q, const float* x, int64_t n) {
  F32 top = splat(0);
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    const F32 v = load_n(x + i, lanes);
    top = max(max(v, splat(0) - v), top);  // top second: NaN leaves it as it is
  });
  const float scale = max_of(top) / 127.0F;
  const F32 divisor = splat(scale == 0 ? __builtin_inff() : scale);
  for_lanes(n, [&](int64_t i, int64_t lanes) { store_i8_n(q + i, load_n(x + i, lanes) / divisor, lanes); });
  return scale;
}

void to_bf16(uint16_t* to, const float* x, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t lanes) { store_bf16_n(to + i, load_n(x + i, lanes), lanes); });
}

void from_bf16(float* to, const uint16_t* x, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t lanes) { store_n(to + i, load_bf16_n(x + i, lanes), lanes); });
}

}  // namespace

extern const StoredRowKernels stored_rows{to_i8, to_bf16, from_bf16};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
