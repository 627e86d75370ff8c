// Register tiles of serving's products by an i8 weight in panels (ops/cpu/quant_panels.h): four bytes of a
// row of a, broadcast, meet the same four of up to 64 columns, so nothing is summed across a register. For
// AVX-512 VNNI alone.
#pragma once
#include "ops/cpu/vec/quant_matmul.h"

namespace moge::ops::cpu::vec {

/// Tiles of up to so many rows wait for memory rather than for arithmetic, so they fetch more of it.
inline constexpr int kQuantWaitingRows = 4;

/// c[i, j] for i < rows <= kQuantTileRows, j < cols, from some steps of a panel at a time. A step is four
/// elements of the inner dimension.
struct QuantPanelTile {
  int rows;
  int64_t cols;  ///< 16, 32, 48 or 64
  int64_t steps;
  const char* a[kQuantTileRows];  // [4 steps] each
  const uint32_t* b;              // [steps, cols], each byte w + 128
  const char* ahead;              ///< the first step fetches this, each further one what is ahead_step behind
  int64_t ahead_step;
  int32_t start[kQuantTileRows];  ///< -128 times the sum of the whole row of a, which w's 128s add
  bool first;                     ///< no steps came before; else `sums` has theirs
  bool last;                      ///< no steps follow: c is written
  int32_t* sums;                  // [rows, kQuantCols]
  QuantOutput out;
};

struct QuantPanelKernels {
  void (*tile)(const QuantPanelTile& t);
  int32_t (*sum)(const char* a, int64_t n);  ///< of n elements
};
namespace avx512 {
extern const QuantPanelKernels quant_panels;
}

}  // namespace moge::ops::cpu::vec
