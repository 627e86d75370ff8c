#include "ops/cpu/vec/quant_panels.h"

#include "ops/cpu/vec/quant_output.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// acc + a . w of four bytes each. w comes as w + 128, because vpdpbusd takes one operand without a sign; the
/// 128 sum(a) that this adds are taken off where a sum begins. All is modulo 2^32, so that the result is
/// exact whenever the product's own sum fits.
#ifdef __AVX512F__
constexpr int kTileRows = 6;  // by 4 vectors: 24 sums, 4 of w, 1 of a

struct Dot {
  using Acc = __m512i;
  static Acc splat(int32_t x) { return _mm512_set1_epi32(x); }
  static Acc load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void store(int32_t* p, Acc v) { _mm512_storeu_si512(p, v); }
  static __m512i load_w(const uint32_t* p) { return _mm512_loadu_si512(p); }
  static __m512i load_a(const char* p) {
    int32_t word;
    __builtin_memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
  }
  /// Not the intrinsic, for which GCC 12 copies and spills the sums at each step.
  static Acc dot(Acc acc, __m512i a, __m512i w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
    return acc;
  }
  static F32 value(Acc sums) { return _mm512_cvtepi32_ps(sums); }
};

int32_t sum_i8(const char* a, int64_t n) {
  __m512i sums = _mm512_setzero_si512();
  for (int64_t k = 0; k < n; k += 64) {
    const __mmask64 there = n - k < 64 ? (uint64_t{1} << (n - k)) - 1 : ~uint64_t{0};
    sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), _mm512_maskz_loadu_epi8(there, a + k));
  }
  return _mm512_reduce_add_epi32(sums);
}
#else
constexpr int kTileRows = 4;  // by 2 vectors: 8 sums, and two registers each of 2 of w and 1 of a

/// Even and odd bytes widened to 16 bits: vpmaddubsw would saturate.
struct Dot {
  struct Halves {
    __m256i even, odd;
  };
  using Acc = __m256i;
  static Acc splat(int32_t x) { return _mm256_set1_epi32(x); }
  static Acc load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store(int32_t* p, Acc v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static Halves load_w(const uint32_t* p) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(bytes, 8)};
  }
  static Halves load_a(const char* p) {
    int32_t word;
    __builtin_memcpy(&word, p, sizeof word);
    const __m256i bytes = _mm256_set1_epi32(word);
    return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
  }
  static Acc dot(Acc acc, const Halves& a, const Halves& w) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a.even, w.even));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a.odd, w.odd));
  }
  static F32 value(Acc sums) { return _mm256_cvtepi32_ps(sums); }
};

int32_t sum_i8(const char* a, int64_t n) {
  int32_t sum = 0;
  for (int64_t k = 0; k < n; ++k) sum += static_cast<signed char>(a[k]);
  return sum;
}
#endif

/// Tiles of up to so many rows wait for memory rather than for arithmetic, so they fetch more of it.
constexpr int kWaitingRows = 4;

/// The lines to be written, so that they are there when the sums are.
inline void fetch_output(const QuantPanelTile& t, int rows) {
  const int64_t bytes = t.cols * (t.out.silu_mul ? 1 : t.out.c_bf16 ? 2 : 4);
  for (int i = 0; i < rows; ++i)
    for (int64_t j = 0; j < bytes; j += 64) __builtin_prefetch(static_cast<const char*>(t.out.c[i]) + j, 1);
}

/// Rows x Vectors sums in registers, from column `col` on.
template <int Rows, int Vectors>
void tile_cols(const QuantPanelTile& t, int64_t col) {
  Dot::Acc acc[Rows][Vectors];
  const auto each = [](const auto& body) __attribute__((always_inline)) {
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) body(i, v);
  };
  if (t.first)
    each([&](int i, int v) { acc[i][v] = Dot::splat(t.start[i]); });
  else
    each([&](int i, int v) { acc[i][v] = Dot::load(t.sums + i * kQuantCols + col + v * kLanes); });
  const char* a[Rows];
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) a[i] = t.a[i];
  if (t.last) fetch_output(t, Rows);
  const uint32_t* b = t.b + col;
  const char* ahead = t.ahead + (Rows <= kWaitingRows ? col * 4 : 0);
  for (int64_t k = 0; k < 4 * t.steps; k += 4) {
    decltype(Dot::load_w(b)) wv[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) wv[v] = Dot::load_w(b + v * kLanes);
    if constexpr (Rows <= kWaitingRows) {
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) __builtin_prefetch(ahead + v * kLanes * 4, 0, 3);
    } else {
      __builtin_prefetch(ahead, 0, 2);
    }
    ahead += t.ahead_step;
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i) {
      const auto av = Dot::load_a(a[i] + k);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) acc[i][v] = Dot::dot(acc[i][v], av, wv[v]);
    }
    b += t.cols;
  }
  if (!t.last)
    return each([&](int i, int v) { Dot::store(t.sums + i * kQuantCols + col + v * kLanes, acc[i][v]); });
  const auto at = [&](int v) { return col + v * kLanes; };
  if (!t.out.silu_mul)
    return each([&](int i, int v) { finish(t.out, i, at(v), kLanes, Dot::value(acc[i][v])); });
  each([&](int i, int v) {
    if (v % 2 == 1) return;
    const bool pair = v + 1 < Vectors;
    const F32 first = scaled(t.out, i, at(v), kLanes, Dot::value(acc[i][v]));
    const F32 second =
        pair ? scaled(t.out, i, at(v + 1), kLanes, Dot::value(acc[i][pair ? v + 1 : v])) : splat(0);
    silu_mul(static_cast<uint16_t*>(t.out.c[i]) + at(v) / 2, first, second, t.out.row_weight[i],
             pair ? kLanes : kLanes / 2);
  });
}

template <int Rows>
void tile_rows(const QuantPanelTile& t) {
#ifdef __AVX512F__
  switch (t.cols / kLanes) {
    case 4:
      return tile_cols<Rows, 4>(t, 0);
    case 3:
      return tile_cols<Rows, 3>(t, 0);
    case 2:
      return tile_cols<Rows, 2>(t, 0);
    default:
      return tile_cols<Rows, 1>(t, 0);
  }
#else
  for (int64_t col = 0; col < t.cols; col += 2 * kLanes) tile_cols<Rows, 2>(t, col);
#endif
}

void tile(const QuantPanelTile& t) {
  switch (t.rows) {
    case 1:
      tile_rows<1>(t);
      break;
    case 2:
      tile_rows<2>(t);
      break;
    case 3:
      tile_rows<3>(t);
      break;
    case 4:
      tile_rows<4>(t);
      break;
#ifdef __AVX512F__
    case 5:
      tile_rows<5>(t);
      break;
    default:
      tile_rows<6>(t);
#endif
  }
}

}  // namespace

extern const QuantPanelKernels quant_panels{kTileRows, tile, sum_i8};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
