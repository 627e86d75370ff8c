#include "ops/cpu/vec/matmul.h"

#include "ops/cpu/vec/matmul_few_rows.h"
#include "ops/cpu/vec/matmul_tile.h"
#include "ops/cpu/vec/matmul_transpose.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// fp32 to bf16 bits in the low half, nearest even. Subnormals become zero, as in vcvtneps2bf16 and
/// vdpbf16ps; NaN stays NaN.
uint32_t bf16_bits(float x) {
  uint32_t u;
  __builtin_memcpy(&u, &x, sizeof u);
  if ((u & 0x7fffffffU) > 0x7f800000U) return (u >> 16) | 0x40U;
  if ((u & 0x7f800000U) == 0) return (u >> 16) & 0x8000U;
  return (u + 0x7fffU + ((u >> 16) & 1U)) >> 16;
}

#ifdef __AVX512F__
/// to[i] = word (even[i], odd[i]), i < n <= 16.
inline void store_pairs(uint32_t* to, F32 even, F32 odd, int64_t n) {
  // Even in the low half, odd in the high; then 0, 16, 1, 17, ...
  const __m512i interleave = _mm512_add_epi16(
      _mm512_cvtepu16_epi32(_mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_setr_epi16(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
                                                                27, 28, 29, 30, 31)),
                        16));
  const __m512i words =
      _mm512_permutexvar_epi16(interleave, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even)));
  if (n == kLanes)
    _mm512_storeu_si512(to, words);
  else
    _mm512_mask_storeu_epi32(to, static_cast<__mmask16>((1U << n) - 1), words);
}
#else
inline __m256i bf16_bits(F32 x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i half = _mm256_add_epi32(_mm256_set1_epi32(0x7fff),
                                        _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1)));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, half), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
  const __m256i tiny =
      _mm256_cmpeq_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x7f800000)), _mm256_setzero_si256());
  const __m256i zero = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x8000));
  return _mm256_blendv_epi8(_mm256_blendv_epi8(rounded, zero, tiny), quiet, nan);
}
inline void store_pairs(uint32_t* to, F32 even, F32 odd, int64_t n) {
  const __m256i words = _mm256_or_si256(bf16_bits(even), _mm256_slli_epi32(bf16_bits(odd), 16));
  _mm256_maskstore_epi32(
      reinterpret_cast<int*>(to),
      _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
      words);
}
#endif

void zero(uint32_t* to, int64_t n) {
  __builtin_memset(to, 0, static_cast<uint64_t>(n) * sizeof(uint32_t));
}

template <class T>
void copy_row(uint32_t* to, const void* from, int64_t n) {
  if (sizeof(T) == 2 && n % 2 != 0) to[n / 2] = 0;
  if (n > 0) __builtin_memcpy(to, from, static_cast<uint64_t>(n) * sizeof(T));
}

void round_row(uint32_t* to, const void* row, int64_t n) {
  const auto* from = static_cast<const float*>(row);
  int64_t i = 0;
#ifdef __AVX512F__
  for (; i + 32 <= n; i += 32) {
    const auto words = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load(from + i + 16), load(from + i)));
    _mm512_storeu_si512(to + i / 2, words);
  }
#else
  for (; i + 16 <= n; i += 16) {
    const __m256i words = _mm256_packus_epi32(bf16_bits(load(from + i)), bf16_bits(load(from + i + 8)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i / 2), _mm256_permute4x64_epi64(words, 0xd8));
  }
#endif
  for (; i < n; i += 2) to[i / 2] = bf16_bits(from[i]) | (i + 1 < n ? bf16_bits(from[i + 1]) << 16 : 0);
}

/// words(to, j, n): writes the n words of columns j.. of one strip.
template <class Words>
inline __attribute__((always_inline)) void pack_step(const Strips& m, int64_t step, const Words& words) {
  for (int64_t j = 0; j < m.cols; j += m.strip) {
    const int64_t n = m.cols - j < m.strip ? m.cols - j : m.strip;
    const int64_t width = (n + kPanelUnit - 1) / kPanelUnit * kPanelUnit;
    uint32_t* to = m.data + j * m.steps + step * width;
    words(to, j, n);
    if (n < width) zero(to + n, width - n);
  }
}

void copy_step(const Strips& m, int64_t step, const void* row, const void*) {
  const auto* from = static_cast<const float*>(row);
  pack_step(m, step, [&](uint32_t* to, int64_t j, int64_t n) {
    for_lanes(n, [&](int64_t i, int64_t lanes) {
      store_n(reinterpret_cast<float*>(to) + i, load_n(from + j + i, lanes), lanes);
    });
  });
}

void round_step(const Strips& m, int64_t step, const void* row0, const void* row1) {
  const auto *even = static_cast<const float*>(row0), *odd = static_cast<const float*>(row1);
  pack_step(m, step, [&](uint32_t* to, int64_t j, int64_t n) {
    for_lanes(n, [&](int64_t i, int64_t lanes) {
      store_pairs(to + i, load_n(even + j + i, lanes), odd ? load_n(odd + j + i, lanes) : splat(0), lanes);
    });
  });
}

void pair_step(const Strips& m, int64_t step, const void* row0, const void* row1) {
  const auto *even = static_cast<const uint16_t*>(row0), *odd = static_cast<const uint16_t*>(row1);
  pack_step(m, step, [&](uint32_t* to, int64_t j, int64_t n) {
    int64_t i = 0;
#ifdef __AVX512F__
    for (; odd && i + kLanes <= n; i += kLanes) {
      const auto words = [&](const uint16_t* row) {
        return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + j + i)));
      };
      _mm512_storeu_si512(to + i, _mm512_or_si512(words(even), _mm512_slli_epi32(words(odd), 16)));
    }
#endif
    for (; i < n; ++i) to[i] = even[j + i] | (odd ? static_cast<uint32_t>(odd[j + i]) << 16 : 0);
  });
}

}  // namespace

extern const MatmulIsa matmul{
    {1, tile<DotF32>, few_rows<DotF32>, {copy_row<float>, copy_step}, {}},
    {2, tile<DotBf16>, few_rows<DotBf16>, {round_row, round_step}, {copy_row<uint16_t>, pair_step}},
    transpose,
};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
