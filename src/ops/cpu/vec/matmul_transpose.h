// Rows of words to columns, for vec/matmul.cpp and vec/matmul_few_rows.h.
#pragma once
#include <cstdint>

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

constexpr int64_t kBlock = kLanes;

inline __attribute__((always_inline)) void fetch_block(const char* from, int64_t stride, int64_t ahead) {
  if (ahead > 0)
    for (int64_t i = 0; i < kBlock; ++i) __builtin_prefetch(from + i * stride + ahead);
}

#ifdef __AVX512F__
/// to[s, j] = from[j, s], 16 x 16 words.
inline __attribute__((always_inline)) void transpose_block(uint32_t* to, int64_t width, const char* from,
                                                           int64_t stride, int64_t ahead) {
  fetch_block(from, stride, ahead);
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
/// to[s, j] = from[j, s], 8 x 8 words.
inline void transpose_block(uint32_t* to, int64_t width, const char* from, int64_t stride, int64_t ahead) {
  fetch_block(from, stride, ahead);
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

__attribute__((noinline)) void transpose(uint32_t* to, int64_t width, const void* from, int64_t stride,
                                         int64_t n, int64_t steps, int64_t ahead) {
  const auto* rows = static_cast<const char*>(from);
  const int64_t whole_rows = n / kBlock * kBlock;
  const int64_t whole_steps = steps / kBlock * kBlock;
  // Along the rows, a few at a time: no hardware follows as many as a panel has.
  for (int64_t j = 0; j < whole_rows; j += kBlock)
    for (int64_t s = 0; s < whole_steps; s += kBlock) {
      transpose_block(to + s * width + j, width, rows + j * stride + s * 4, stride, ahead);
    }
  const auto copy = [&](int64_t s, int64_t j_begin) {
    for (int64_t j = j_begin; j < n; ++j) __builtin_memcpy(to + s * width + j, rows + j * stride + s * 4, 4);
    __builtin_memset(to + s * width + n, 0, static_cast<uint64_t>(width - n) * sizeof(uint32_t));
  };
  for (int64_t s = 0; s < whole_steps; ++s) copy(s, whole_rows);
  for (int64_t s = whole_steps; s < steps; ++s) copy(s, 0);
}

}  // namespace
}  // namespace moge::ops::cpu::vec::MOGE_ISA
