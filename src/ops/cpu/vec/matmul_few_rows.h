// Products of few rows with a weight whose rows are the columns, for vec/matmul.cpp. A packed weight would be
// used once: so a few lines of it at a time are transposed, and multiplied while others are loaded. The sums
// stay in registers over all steps, in the order of register tiles, so the bits are the same.
#pragma once
#include "ops/cpu/vec/matmul_tile.h"
#include "ops/cpu/vec/matmul_transpose.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// Bytes that are fetched ahead along each row of the weight.
constexpr int64_t kFewRowsAhead = 256;
constexpr int kFewRowsVectors = kLanes == 16 ? 2 : 1;
constexpr int64_t kFewRowsCols = kFewRowsVectors * kLanes;

/// `kKeeps`: t.packed is there.
template <class Dot, int Rows, bool kKeeps = false>
void few_rows(const MatmulFewRows& t) {
  constexpr int kVectors = kFewRowsVectors;
  constexpr int64_t kWidth = kKeeps ? kPanelCols : kFewRowsCols;
  const auto each = [](const auto& body) __attribute__((always_inline)) {
    each_sum<Rows, kVectors>(body);
  };
  alignas(64) uint32_t unkept[kBlock * kFewRowsCols];
  const auto* w = static_cast<const char*>(t.w);
  for (int64_t col = 0; col < t.cols; col += kFewRowsCols, w += kFewRowsCols * t.w_stride) {
    const int64_t cols = t.cols - col < kFewRowsCols ? t.cols - col : kFewRowsCols;
    F32 acc[Rows][kVectors];
    each([&](int i, int v) {
      const int64_t at = col + v * kLanes;
      acc[i][v] = t.init ? load_n(t.init + i * kPanelCols + at, lanes_from(at, t.cols)) : splat(0);
    });
    for (int64_t begin = 0; begin < t.steps; begin += kBlock) {
      const int64_t steps = t.steps - begin < kBlock ? t.steps - begin : kBlock;
      // Behind the rows' ends, the beginnings of the next columns'.
      const bool more = begin * 4 + kFewRowsAhead < t.steps * 4;
      const int64_t along = kFewRowsAhead + (more ? 0 : kFewRowsCols * t.w_stride - t.steps * 4);
      // What is kept has been fetched into L2: fetching it once more takes time from the loads.
      const int64_t ahead = kKeeps ? 0 : along;
      const char* from = w + begin * 4;
      uint32_t* b = kKeeps ? t.packed + begin * kWidth + col : unkept;
      if (cols == kFewRowsCols && steps == kBlock) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v)
          transpose_block(b + v * kLanes, kWidth, from + v * kLanes * t.w_stride, t.w_stride, ahead);
      } else {
        transpose(unkept, kFewRowsCols, from, t.w_stride, cols, steps, ahead);
        for (int64_t s = 0; kKeeps && s < steps; ++s)
          __builtin_memcpy(b + s * kWidth, unkept + s * kFewRowsCols, sizeof *b * kFewRowsCols);
      }
      for (int64_t s = 0; s < steps; ++s)
        add_step<Dot>(
            acc, [&](int i) { return t.a + i * t.a_stride + begin + s; }, b + s * kWidth);
    }
    each([&](int i, int v) {
      const int64_t at = col + v * kLanes, lanes = lanes_from(at, t.cols);
      if (t.bias) acc[i][v] = acc[i][v] + load_n(t.bias + at, lanes);
      if (t.add) acc[i][v] = acc[i][v] + load_n(t.add + i * t.add_stride + at, lanes);
      store_n(t.c + i * t.c_stride + at, acc[i][v], lanes);
    });
  }
}

template <class Dot>
void few_rows(int rows, const MatmulFewRows& t) {
  static_assert(kFewRows == 8);
  if (t.packed) return few_rows<Dot, kFewRows, true>(t);
  switch (rows) {
    case 1:
      return few_rows<Dot, 1>(t);
    case 2:
      return few_rows<Dot, 2>(t);
    case 3:
      return few_rows<Dot, 3>(t);
    case 4:
      return few_rows<Dot, 4>(t);
    case 5:
      return few_rows<Dot, 5>(t);
    case 6:
      return few_rows<Dot, 6>(t);
    case 7:
      return few_rows<Dot, 7>(t);
    default:
      return few_rows<Dot, 8>(t);
  }
}

}  // namespace
}  // namespace moge::ops::cpu::vec::MOGE_ISA
