#include "ops/cpu/vec/matmul.h"

#include "ops/cpu/vec/matmul_tile.h"

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

#ifdef __AVX512F__
constexpr int64_t kBlock = 16;
/// to[s, j] = from[j, s], 16 x 16 words.
inline void transpose_block(uint32_t* to, int64_t width, const char* from, int64_t stride) {
  __m512i r[16], t[16];
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j) r[j] = _mm512_loadu_si512(from + j * stride);
#pragma GCC unroll 8
  for (int j = 0; j < 16; j += 2) {
    t[j] = _mm512_unpacklo_epi32(r[j], r[j + 1]);
    t[j + 1] = _mm512_unpackhi_epi32(r[j], r[j + 1]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 16; j += 4) {
    r[j] = _mm512_unpacklo_epi64(t[j], t[j + 2]);
    r[j + 1] = _mm512_unpackhi_epi64(t[j], t[j + 2]);
    r[j + 2] = _mm512_unpacklo_epi64(t[j + 1], t[j + 3]);
    r[j + 3] = _mm512_unpackhi_epi64(t[j + 1], t[j + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88);
    t[j + 4] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
    t[j + 8] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
    t[j + 12] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    _mm512_storeu_si512(to + j * width, _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88));
    _mm512_storeu_si512(to + (j + 4) * width, _mm512_shuffle_i32x4(t[j + 4], t[j + 12], 0x88));
    _mm512_storeu_si512(to + (j + 8) * width, _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd));
    _mm512_storeu_si512(to + (j + 12) * width, _mm512_shuffle_i32x4(t[j + 4], t[j + 12], 0xdd));
  }
}
#else
constexpr int64_t kBlock = 8;
/// to[s, j] = from[j, s], 8 x 8 words.
inline void transpose_block(uint32_t* to, int64_t width, const char* from, int64_t stride) {
  __m256i r[8], t[8];
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) r[j] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + j * stride));
#pragma GCC unroll 4
  for (int j = 0; j < 8; j += 2) {
    t[j] = _mm256_unpacklo_epi32(r[j], r[j + 1]);
    t[j + 1] = _mm256_unpackhi_epi32(r[j], r[j + 1]);
  }
#pragma GCC unroll 2
  for (int j = 0; j < 8; j += 4) {
    r[j] = _mm256_unpacklo_epi64(t[j], t[j + 2]);
    r[j + 1] = _mm256_unpackhi_epi64(t[j], t[j + 2]);
    r[j + 2] = _mm256_unpacklo_epi64(t[j + 1], t[j + 3]);
    r[j + 3] = _mm256_unpackhi_epi64(t[j + 1], t[j + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + j * width),
                        _mm256_permute2x128_si256(r[j], r[j + 4], 0x20));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + (j + 4) * width),
                        _mm256_permute2x128_si256(r[j], r[j + 4], 0x31));
  }
}
#endif

void transpose(uint32_t* to, int64_t width, const void* from, int64_t stride, int64_t n, int64_t steps,
               int64_t ahead) {
  const auto* rows = static_cast<const char*>(from);
  const int64_t whole_rows = n / kBlock * kBlock;
  const int64_t whole_steps = steps / kBlock * kBlock;
  // Along the rows, a few at a time: no hardware follows as many as a panel has.
  for (int64_t j = 0; j < whole_rows; j += kBlock)
    for (int64_t s = 0; s < whole_steps; s += kBlock) {
      const char* from_block = rows + j * stride + s * 4;
      if (ahead > 0)
        for (int64_t i = 0; i < kBlock; ++i) __builtin_prefetch(from_block + i * stride + ahead);
      transpose_block(to + s * width + j, width, from_block, stride);
    }
  const auto copy = [&](int64_t s, int64_t j_begin) {
    for (int64_t j = j_begin; j < n; ++j) __builtin_memcpy(to + s * width + j, rows + j * stride + s * 4, 4);
    zero(to + s * width + n, width - n);
  };
  for (int64_t s = 0; s < whole_steps; ++s) copy(s, whole_rows);
  for (int64_t s = whole_steps; s < steps; ++s) copy(s, 0);
}

}  // namespace

extern const MatmulIsa matmul{
    {1, tile<DotF32>, {copy_row<float>, copy_step}, {}},
    {2, tile<DotBf16>, {round_row, round_step}, {copy_row<uint16_t>, pair_step}},
    transpose,
};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
