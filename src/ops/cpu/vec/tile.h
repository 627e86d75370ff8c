// Small fp32 matrix products and transposes on operands that lie in cache, for attention. Rows are padded to
// whole vectors, so no kernel here masks.
#pragma once
#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

constexpr int64_t kPanel = 64;  ///< columns of a panel of a right operand: one L1-resident stripe
constexpr int kStrip = 6;       ///< rows of a register tile
#ifdef __AVX512F__
constexpr int kTileVectors = 4;  // 24 accumulators, 4 columns, 1 broadcast of 32 registers
#else
constexpr int kTileVectors = 2;  // 12 + 2 + 1 of 16
#endif

/// A left operand [M, K] by strides: element (m, k) is p[m * row + k * col].
struct Left {
  const float* p;
  int64_t row, col;
};
/// A right operand [K, N]: rows of `row` floats, in panels of kPanel columns `panel` floats apart (kPanel for
/// a plain row-major matrix).
struct Right {
  const float* p;
  int64_t row, panel;
  const float* at(int64_t k, int64_t n) const { return p + k * row + n / kPanel * panel + n % kPanel; }
};

/// c[MR, NR vectors] = (or +=) a[MR, K] b[K, NR vectors]; each element is one chain of fused multiply-adds
/// over rising k, whatever MR and NR.
template <int MR, int NR>
void tile(float* c, int64_t ldc, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t ldb,
          int64_t K, bool accumulate) {
  F32 acc[MR][NR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < NR; ++n) acc[m][n] = accumulate ? load(c + m * ldc + n * kLanes) : splat(0);
  for (int64_t k = 0; k < K; ++k) {
    F32 col[NR];
#pragma GCC unroll 4
    for (int n = 0; n < NR; ++n) col[n] = load(b + k * ldb + n * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
      const F32 x = splat(a[m * a_row + k * a_col]);
#pragma GCC unroll 4
      for (int n = 0; n < NR; ++n) acc[m][n] = fma(x, col[n], acc[m][n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < NR; ++n) store(c + m * ldc + n * kLanes, acc[m][n]);
}

template <int MR>
void tile_columns(int64_t vectors, float* c, int64_t ldc, const float* a, int64_t a_row, int64_t a_col,
                  const float* b, int64_t ldb, int64_t K, bool accumulate) {
  switch (vectors) {
    case 1:
      return tile<MR, 1>(c, ldc, a, a_row, a_col, b, ldb, K, accumulate);
    case 2:
      return tile<MR, 2>(c, ldc, a, a_row, a_col, b, ldb, K, accumulate);
#ifdef __AVX512F__
    case 3:
      return tile<MR, 3>(c, ldc, a, a_row, a_col, b, ldb, K, accumulate);
    case 4:
      return tile<MR, 4>(c, ldc, a, a_row, a_col, b, ldb, K, accumulate);
#endif
  }
}

/// The part of a strip of rows that a mask leaves: inner range and columns.
struct Bounds {
  int64_t k_begin, k_end, n_end;
};

/// c[M, N] = (or +=) a b, N rounded up to whole vectors. bounds(m, end) is the unmasked part of rows
/// m .. end-1; what lies outside is neither read nor written.
template <class BoundsOf>
void matmul(int64_t M, int64_t N, float* c, int64_t ldc, const Left& a, const Right& b, bool accumulate,
            const BoundsOf& bounds) {
  constexpr int64_t width = kTileVectors * kLanes;
  for (int64_t n = 0; n < N; n += width) {
    for (int64_t m = 0; m < M; m += kStrip) {
      const int64_t rows = M - m < kStrip ? M - m : kStrip;
      const Bounds in = bounds(m, m + rows);
      const int64_t left = in.n_end - n;
      if (left <= 0) continue;
      const int64_t vectors = left >= width ? kTileVectors : (left + kLanes - 1) / kLanes;
      const auto run = [&](auto kernel) {
        kernel(vectors, c + m * ldc + n, ldc, a.p + m * a.row + in.k_begin * a.col, a.row, a.col,
               b.at(in.k_begin, n), b.row, in.k_end - in.k_begin, accumulate);
      };
      switch (rows) {
        case 1:
          run(tile_columns<1>);
          break;
        case 2:
          run(tile_columns<2>);
          break;
        case 3:
          run(tile_columns<3>);
          break;
        case 4:
          run(tile_columns<4>);
          break;
        case 5:
          run(tile_columns<5>);
          break;
        default:
          run(tile_columns<kStrip>);
      }
    }
  }
}

/// kLanes rows of kLanes values, transposed in place.
inline void transpose(F32 (&r)[kLanes]) {
#ifdef __AVX512F__
  F32 t[16], u[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  const auto lo = [](F32 a, F32 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto hi = [](F32 a, F32 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    u[i] = lo(t[i], t[i + 2]);
    u[i + 1] = hi(t[i], t[i + 2]);
    u[i + 2] = lo(t[i + 1], t[i + 3]);
    u[i + 3] = hi(t[i + 1], t[i + 3]);
  }
  // u[4 i + j] holds columns j, j + 4, j + 8, j + 12 of rows 4 i .. 4 i + 3, one per 128-bit lane.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const F32 even0 = _mm512_shuffle_f32x4(u[j], u[4 + j], 0x88);
    const F32 odd0 = _mm512_shuffle_f32x4(u[j], u[4 + j], 0xdd);
    const F32 even1 = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0x88);
    const F32 odd1 = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0xdd);
    r[j] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    r[4 + j] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    r[8 + j] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    r[12 + j] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
#else
  F32 t[8], u[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    r[j] = _mm256_permute2f128_ps(u[j], u[4 + j], 0x20);
    r[4 + j] = _mm256_permute2f128_ps(u[j], u[4 + j], 0x31);
  }
#endif
}

/// The first n lanes of a row of fp32 or bf16 values, zero elsewhere.
inline F32 load_row(const float* p, int64_t n) {
  return load_n(p, n);
}
inline F32 load_row(const uint16_t* p, int64_t n) {
  uint16_t tail[kLanes] = {};
  if (n < kLanes) {
    for (int64_t i = 0; i < n; ++i) tail[i] = p[i];
    p = tail;
  }
#ifdef __AVX512F__
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
#else
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
#endif
}

/// n rows of D values as the transposed right operand [D, n]: panels of [D, kPanel], zero past column n.
template <class T>
void pack_transposed(float* panels, const void* const* rows, int64_t n, int64_t D) {
  for (int64_t r = 0; r < n; r += kLanes) {
    for (int64_t d = 0; d < D; d += kLanes) {
      const int64_t width = D - d < kLanes ? D - d : kLanes;
      F32 x[kLanes];
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes; ++i)
        x[i] = r + i < n ? load_row(static_cast<const T*>(rows[r + i]) + d, width) : splat(0);
      transpose(x);
      float* to = panels + r / kPanel * D * kPanel + d * kPanel + r % kPanel;
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes; ++i)
        if (i < width) store(to + i * kPanel, x[i]);
    }
  }
}

/// n rows of D values, `stride` floats apart, padded with zeros to Dp.
template <class T>
void pack_rows(float* to, int64_t stride, const void* const* rows, int64_t n, int64_t D, int64_t Dp) {
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t d = 0; d < Dp; d += kLanes) {
      const int64_t left = D - d;
      const int64_t width = left < 0 ? 0 : left < kLanes ? left : kLanes;
      store(to + r * stride + d, load_row(static_cast<const T*>(rows[r]) + d, width));
    }
  }
}

}  // namespace
}  // namespace moge::ops::cpu::vec::MOGE_ISA
