// Register tiles, for vec/matmul.cpp. Every element is one chain of fused multiply-adds (or bf16 pair dots)
// over the steps in increasing order, whatever the tile's size: so a row's bits depend neither on how many
// rows there are nor on how they were cut into tiles.
#pragma once
#include "ops/cpu/vec/matmul.h"
#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// acc + a . b for words that hold one fp32 each.
struct DotF32 {
#ifdef __AVX512F__
  using Word = __m512;
  static Word broadcast(const uint32_t* p) {
    return _mm512_set1_ps(*reinterpret_cast<const float*>(p));
  }
#else
  using Word = __m256;
  static Word broadcast(const uint32_t* p) {
    return _mm256_broadcast_ss(reinterpret_cast<const float*>(p));
  }
#endif
  static Word load(const uint32_t* p) {
    return MOGE_ISA::load(reinterpret_cast<const float*>(p));
  }
  static F32 dot(F32 acc, Word a, Word b) {
    return fma(a, b, acc);
  }
};

/// acc + a . b for words that hold two bf16 each.
struct DotBf16 {
#ifdef __AVX512F__
  using Word = __m512i;
  static Word broadcast(const uint32_t* p) {
    return _mm512_set1_epi32(static_cast<int>(*p));
  }
  static Word load(const uint32_t* p) {
    return _mm512_loadu_si512(p);
  }
  static F32 dot(F32 acc, Word a, Word b) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
#else
  struct Word {
    F32 even, odd;
  };
  static Word widen(__m256i pair) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xffff0000U))))};
  }
  static Word broadcast(const uint32_t* p) {
    return widen(_mm256_set1_epi32(static_cast<int>(*p)));
  }
  static Word load(const uint32_t* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F32 dot(F32 acc, const Word& a, const Word& b) {
    return fma(a.odd, b.odd, fma(a.even, b.even, acc));
  }
#endif
};

/// body(i, v) of each sum of a tile.
template <int Rows, int Vectors, class Body>
inline __attribute__((always_inline)) void each_sum(const Body& body) {
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) body(i, v);
}

/// acc[i][v] += word(i) . b[v].
template <class Dot, int Rows, int Vectors, class Word>
inline __attribute__((always_inline)) void add_step(F32 (&acc)[Rows][Vectors], const Word& word,
                                                    const uint32_t* b) {
  typename Dot::Word bv[Vectors];
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) bv[v] = Dot::load(b + v * kLanes);
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    const typename Dot::Word av = Dot::broadcast(word(i));
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[i][v] = Dot::dot(acc[i][v], av, bv[v]);
  }
}

/// How many of a vector's columns from `col` there are.
inline int64_t lanes_from(int64_t col, int64_t cols) {
  const int64_t left = cols - col;
  return left < 0 ? 0 : left < kLanes ? left : kLanes;
}

/// Rows x Vectors sums in registers. `kWhole`: all columns are there; else loads and stores are masked.
template <class Dot, int Rows, int Vectors, bool kWhole>
void tile_cols(const MatmulTile& t, int64_t col) {
  constexpr bool kWaits = tile_waits(Rows);
  F32 acc[Rows][Vectors];
  const auto load_cols = [&](const float* row, int v) {
    return kWhole ? load(row + v * kLanes) : load_n(row + v * kLanes, lanes_from(col + v * kLanes, t.cols));
  };
  const auto each = [](const auto& body) __attribute__((always_inline)) {
    each_sum<Rows, Vectors>(body);
  };
  const char* ahead = t.ahead + (kWaits ? col * 4 : 0);
  int64_t ahead_left = t.ahead_left;
  const uint32_t* b = t.b + col;
  for (int64_t panel = 0; panel < t.panels; ++panel, col += t.b_width) {
    if (t.init)
      each([&](int i, int v) { acc[i][v] = load_cols(t.init + i * t.init_stride + col, v); });
    else
      each([&](int i, int v) { acc[i][v] = splat(0); });

    const uint32_t* a[Rows];
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) a[i] = t.a[i];
    int64_t offset = 0;
    for (int64_t s = 0; s < t.steps; ++s) {
      if constexpr (kWaits) {
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) __builtin_prefetch(ahead + v * kLanes * 4, 0, 3);
        ahead += t.ahead_step;
      } else {
        __builtin_prefetch(ahead, 0, 2);
        const bool jump = --ahead_left == 0;
        ahead += jump ? t.ahead_jump : t.ahead_step;
        ahead_left = jump ? t.ahead_lines : ahead_left;
      }
      add_step<Dot>(
          acc, [&](int i) { return a[i] + offset; }, b);
      b += t.b_stride;
      offset += t.a_step;
    }

    if (t.bias) each([&](int i, int v) { acc[i][v] = acc[i][v] + load_cols(t.bias + col, v); });
    if (t.add)
      each([&](int i, int v) { acc[i][v] = acc[i][v] + load_cols(t.add + i * t.add_stride + col, v); });
    if (kWhole && t.stream)
      each([&](int i, int v) { stream(t.c + i * t.c_stride + col + v * kLanes, acc[i][v]); });
    else
      each([&](int i, int v) {
        float* c = t.c + i * t.c_stride + col + v * kLanes;
        kWhole ? store(c, acc[i][v]) : store_n(c, acc[i][v], lanes_from(col + v * kLanes, t.cols));
      });
  }
}

template <class Dot, int Rows, int Vectors>
void tile_cols(const MatmulTile& t, int64_t col) {
  if (t.cols - col >= Vectors * kLanes)
    tile_cols<Dot, Rows, Vectors, true>(t, col);
  else
    tile_cols<Dot, Rows, Vectors, false>(t, col);
}

#ifdef __AVX512F__
/// 7 or 8 rows of a whole panel, whose sums fill the registers twice: its halves in turns, some steps of
/// each, so that memory is read as forward as by one tile, and called once.
template <class Dot, int Rows>
void tile_halves(const MatmulTile& t) {
  constexpr int kVectors = 2, kHalves = 2;
  constexpr int64_t kTurn = 32;
  static_assert(kHalves * kVectors * kLanes == kPanelCols);
  F32 sums[kHalves][Rows][kVectors];
  const auto each = [](const auto& body) __attribute__((always_inline)) {
    for (int64_t half = 0; half < kHalves; ++half)
      each_sum<Rows, kVectors>([&](int i, int v) { body(half, i, v, (half * kVectors + v) * kLanes); });
  };
  each([&](int64_t half, int i, int v, int64_t col) {
    sums[half][i][v] = t.init ? load_n(t.init + i * t.init_stride + col, lanes_from(col, t.cols)) : splat(0);
  });
  const uint32_t* a[Rows];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) a[i] = t.a[i];
  for (int64_t begin = 0; begin < t.steps; begin += kTurn) {
    const int64_t end = t.steps - begin < kTurn ? t.steps : begin + kTurn;
#pragma GCC unroll 2
    for (int64_t half = 0; half < kHalves; ++half) {
      F32 acc[Rows][kVectors];
      each_sum<Rows, kVectors>([&](int i, int v) { acc[i][v] = sums[half][i][v]; });
      const uint32_t* b = t.b + begin * t.b_stride + half * kVectors * kLanes;
      const char* ahead = t.ahead + begin * t.ahead_step;
      int64_t offset = begin * t.a_step;
      for (int64_t s = begin; s < end; ++s) {
        if (half == 0) {
#pragma GCC unroll 4
          for (int line = 0; line < kHalves * kVectors; ++line) __builtin_prefetch(ahead + line * 64, 0, 3);
          ahead += t.ahead_step;
        }
        add_step<Dot>(
            acc, [&](int i) { return a[i] + offset; }, b);
        b += t.b_stride;
        offset += t.a_step;
      }
      each_sum<Rows, kVectors>([&](int i, int v) { sums[half][i][v] = acc[i][v]; });
    }
  }
  each([&](int64_t half, int i, int v, int64_t col) {
    const int64_t lanes = lanes_from(col, t.cols);
    F32 sum = sums[half][i][v];
    if (t.bias) sum = sum + load_n(t.bias + col, lanes);
    if (t.add) sum = sum + load_n(t.add + i * t.add_stride + col, lanes);
    store_n(t.c + i * t.c_stride + col, sum, lanes);
  });
}
#endif

template <class Dot, int Rows>
void tile_rows(const MatmulTile& t) {
#ifdef __AVX512F__
  if constexpr (Rows > kTileRows) {
    if (t.b_width == kPanelCols && t.panels == 1) return tile_halves<Dot, Rows>(t);
    for (int64_t col = 0; col < t.b_width; col += 2 * kLanes)
      t.b_width - col > kLanes ? tile_cols<Dot, Rows, 2>(t, col) : tile_cols<Dot, Rows, 1>(t, col);
    return;
  }
  switch (t.b_width / kPanelUnit) {
    case 4:
      return tile_cols<Dot, Rows, 4>(t, 0);
    case 3:
      return tile_cols<Dot, Rows, 3>(t, 0);
    case 2:
      return tile_cols<Dot, Rows, 2>(t, 0);
    default:
      return tile_cols<Dot, Rows, 1>(t, 0);
  }
#else
  constexpr int kVectors = Rows > kTileRows ? 1 : 2;
  for (int64_t col = 0; col < t.cols; col += kVectors * kLanes) tile_cols<Dot, Rows, kVectors>(t, col);
#endif
}

template <class Dot>
void tile(int rows, const MatmulTile& t) {
  static_assert(kFewRows == 8);
  switch (rows) {
    case 1:
      return tile_rows<Dot, 1>(t);
    case 2:
      return tile_rows<Dot, 2>(t);
    case 3:
      return tile_rows<Dot, 3>(t);
    case 4:
      return tile_rows<Dot, 4>(t);
    case 5:
      return tile_rows<Dot, 5>(t);
    case 6:
      return tile_rows<Dot, 6>(t);
    case 7:
      return tile_rows<Dot, 7>(t);
    default:
      return tile_rows<Dot, 8>(t);
  }
}

}  // namespace
}  // namespace moge::ops::cpu::vec::MOGE_ISA
