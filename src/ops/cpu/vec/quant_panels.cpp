#include "ops/cpu/vec/quant_panels.h"

#include "ops/cpu/vec/quant_output.h"

#ifdef __AVX512F__
namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

constexpr int kVectors = 4;  // of a tile of kQuantTileRows: 24 sums, 4 of w, 1 of a

__m512i load(const void* p) {
  return _mm512_loadu_si512(p);
}
/// Four bytes in every lane.
__m512i splat_word(const char* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}
/// acc + a . w of four bytes each. w comes as w + 128, because vpdpbusd takes one operand without a sign; the
/// 128 sum(a) that this adds are taken off where a sum begins. All is modulo 2^32, so that the result is
/// exact whenever the product's own sum fits. Not the intrinsic, for which GCC 12 copies and spills the sums
/// at each step.
__m512i dot(__m512i acc, __m512i a, __m512i w) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
  return acc;
}

int32_t sum_i8(const char* a, int64_t n) {
  __m512i sums = _mm512_setzero_si512();
  for (int64_t k = 0; k < n; k += 64) {
    const __mmask64 there = n - k < 64 ? (uint64_t{1} << (n - k)) - 1 : ~uint64_t{0};
    sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), _mm512_maskz_loadu_epi8(there, a + k));
  }
  return _mm512_reduce_add_epi32(sums);
}

/// The lines to be written, so that they are there when the sums are.
inline void fetch_output(const QuantPanelTile& t, int rows) {
  const int64_t bytes = t.cols * (t.out.silu_mul ? 1 : t.out.c_bf16 ? 2 : 4);
  for (int i = 0; i < rows; ++i)
    for (int64_t j = 0; j < bytes; j += 64) __builtin_prefetch(static_cast<const char*>(t.out.c[i]) + j, 1);
}

/// Rows x Vectors sums in registers.
template <int Rows, int Vectors>
void tile_sums(const QuantPanelTile& t) {
  __m512i acc[Rows][Vectors];
  const auto each = [](const auto& body) __attribute__((always_inline)) {
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) body(i, v);
  };
  if (t.first)
    each([&](int i, int v) { acc[i][v] = _mm512_set1_epi32(t.start[i]); });
  else
    each([&](int i, int v) { acc[i][v] = load(t.sums + i * kQuantCols + v * kLanes); });
  const char* a[Rows];
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) a[i] = t.a[i];
  if (t.last) fetch_output(t, Rows);
  const uint32_t* b = t.b;
  const char* ahead = t.ahead;
  for (int64_t k = 0; k < 4 * t.steps; k += 4) {
    __m512i wv[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) wv[v] = load(b + v * kLanes);
    if constexpr (Rows <= kQuantWaitingRows) {
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) __builtin_prefetch(ahead + v * kLanes * 4, 0, 3);
    } else {
      __builtin_prefetch(ahead, 0, 2);
    }
    ahead += t.ahead_step;
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i) {
      const __m512i av = splat_word(a[i] + k);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) acc[i][v] = dot(acc[i][v], av, wv[v]);
    }
    b += t.cols;
  }
  if (!t.last)
    return each([&](int i, int v) { _mm512_storeu_si512(t.sums + i * kQuantCols + v * kLanes, acc[i][v]); });
  if (!t.out.silu_mul)
    return each([&](int i, int v) { finish(t.out, i, v * kLanes, kLanes, _mm512_cvtepi32_ps(acc[i][v])); });
  each([&](int i, int v) {
    if (v % 2 == 1) return;
    const bool pair = v + 1 < Vectors;
    const F32 first = scaled(t.out, i, v * kLanes, kLanes, _mm512_cvtepi32_ps(acc[i][v]));
    const F32 second =
        pair ? scaled(t.out, i, (v + 1) * kLanes, kLanes, _mm512_cvtepi32_ps(acc[i][pair ? v + 1 : v]))
             : splat(0);
    silu_mul(static_cast<uint16_t*>(t.out.c[i]) + v * kLanes / 2, first, second, t.out.row_weight[i],
             pair ? kLanes : kLanes / 2);
  });
}

template <int Rows>
void tile_rows(const QuantPanelTile& t) {
  switch (t.cols / kLanes) {
    case kVectors:
      return tile_sums<Rows, kVectors>(t);
    case 3:
      return tile_sums<Rows, 3>(t);
    case 2:
      return tile_sums<Rows, 2>(t);
    default:
      return tile_sums<Rows, 1>(t);
  }
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
    case 5:
      tile_rows<5>(t);
      break;
    default:
      tile_rows<kQuantTileRows>(t);
  }
}

}  // namespace

extern const QuantPanelKernels quant_panels{tile, sum_i8};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
#endif
