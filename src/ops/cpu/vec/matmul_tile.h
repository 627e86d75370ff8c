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

/// Rows x Vectors sums in registers. `kWhole`: all columns are there; else loads and stores are masked.
template <class Dot, int Rows, int Vectors, bool kWhole>
void tile_cols(const MatmulTile& t, int64_t col) {
  F32 acc[Rows][Vectors];
  const auto lanes = [&](int v) {
    const int64_t left = t.cols - col - v * kLanes;
    return left < 0 ? 0 : left < kLanes ? left : kLanes;
  };
  const auto load_cols = [&](const float* row, int v) {
    return kWhole ? load(row + v * kLanes) : load_n(row + v * kLanes, lanes(v));
  };
  const auto each = [](const auto& body) __attribute__((always_inline)) {
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) body(i, v);
  };
  const char* ahead = t.ahead + (Rows <= kWaitingRows ? col * 4 : 0);
  int64_t ahead_left = t.ahead_left;
  const uint32_t* b = t.b + col;
  for (int64_t panel = 0; panel < t.panels; ++panel, col += t.b_width) {
    if (t.init)
      each([&](int i, int v) { acc[i][v] = load_cols(t.init + i * t.init_stride + col, v); });
    else
      each([&](int i, int v) { acc[i][v] = splat(0); });

    const uint32_t* a[Rows];
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i) a[i] = t.a[i];
    int64_t offset = 0;
    for (int64_t s = 0; s < t.steps; ++s) {
      typename Dot::Word bv[Vectors];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) bv[v] = Dot::load(b + v * kLanes);
      if constexpr (Rows <= kWaitingRows) {
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) __builtin_prefetch(ahead + v * kLanes * 4, 0, 3);
        ahead += t.ahead_step;
      } else {
        __builtin_prefetch(ahead, 0, 2);
        const bool jump = --ahead_left == 0;
        ahead += jump ? t.ahead_jump : t.ahead_step;
        ahead_left = jump ? t.ahead_lines : ahead_left;
      }
#pragma GCC unroll 6
      for (int i = 0; i < Rows; ++i) {
        const typename Dot::Word av = Dot::broadcast(a[i] + offset);
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) acc[i][v] = Dot::dot(acc[i][v], av, bv[v]);
      }
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
        kWhole ? store(c, acc[i][v]) : store_n(c, acc[i][v], lanes(v));
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

template <class Dot, int Rows>
void tile_rows(const MatmulTile& t) {
#ifdef __AVX512F__
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
  for (int64_t col = 0; col < t.cols; col += kPanelUnit) tile_cols<Dot, Rows, 2>(t, col);
#endif
}

template <class Dot>
void tile(int rows, const MatmulTile& t) {
  static_assert(kTileRows == 6);
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
    default:
      return tile_rows<Dot, 6>(t);
  }
}

}  // namespace
}  // namespace moge::ops::cpu::vec::MOGE_ISA
