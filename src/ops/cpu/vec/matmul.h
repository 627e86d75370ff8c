// Register tiles and packing of the CPU matmul family. Both precisions share one shape of data: the inner
// dimension advances in steps of one 32-bit word, an fp32 (precision f32) or a pair of bf16 (precision bf16,
// the even index in the low half). So a driver moves words and only these kernels know what they hold.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

/// Columns of a B panel; the last panel of a matrix may be narrower, in multiples of kPanelUnit.
inline constexpr int64_t kPanelCols = 64;
inline constexpr int64_t kPanelUnit = 16;
/// Rows of a register tile of many: 6 x 64 fp32 are 24 of AVX-512's 32 registers.
inline constexpr int kTileRows = 6;
/// Most rows of one tile; its panel is multiplied in halves if they are more than kTileRows.
inline constexpr int kFewRows = 8;
/// Tiles of so many rows wait for memory rather than for arithmetic, so they fetch more of it.
constexpr bool tile_waits(int rows) {
  return rows <= 4 || rows > kTileRows;
}

/// A packed [steps, cols] matrix of words: strips of `strip` columns, each [steps, width], one after the
/// other; the last is as narrow as its columns allow in multiples of kPanelUnit.
struct Strips {
  uint32_t* data;
  int64_t steps;
  int64_t cols;
  int64_t strip;
};

/// c[i, j] = init[i, j] + sum over s of a[i][s] . b[s, j], then + bias[j] + add[i, j]; i < rows, j < cols.
struct MatmulTile {
  const uint32_t* a[kFewRows];  // row i's words, a_step apart
  int64_t a_step;
  const uint32_t* b;  // [steps, b_width], steps b_stride words apart
  int64_t b_stride;
  int64_t b_width;  // of the panel: 16, 32, 48 or 64
  int64_t steps;
  int64_t cols;       // <= b_width
  int64_t panels;     // multiplied one after the other, b_width columns of c each; whole, if several
  const float* init;  // rows init_stride apart; null: zero
  int64_t init_stride;
  float* c;  // may be init or add
  int64_t c_stride;
  const float* bias;  // null: none
  const float* add;   // null: none
  int64_t add_stride;
  bool stream;  // c is written past the caches: its rows are 64-byte aligned, and a fence follows
  // Each step fetches an address into L2 (tiles of few rows: as many lines as b has columns for), ahead_step
  // bytes apart; after the first ahead_left and then each ahead_lines, the next is ahead_jump bytes apart.
  const char* ahead;
  int64_t ahead_left;
  int64_t ahead_step;
  int64_t ahead_lines;
  int64_t ahead_jump;
};

/// c[i, j] = init[i, j] + sum over s of a[i][s] . w[j][s], then + bias[j] + add[i, j]; j < cols.
struct MatmulFewRows {
  const uint32_t* a;  // rows a_stride words apart
  int64_t a_stride;
  const void* w;     // rows of words, not packed
  int64_t w_stride;  // bytes: rows of bf16 may start at odd elements
  int64_t steps;
  int64_t cols;
  // Becomes the panel [steps, kPanelCols] of w, whose lines have been fetched; kPanelCols columns and
  // kFewRows rows only. Null: nothing is kept.
  uint32_t* packed;
  const float* init;  // rows kPanelCols apart; null: zero
  float* c;           // may be init or add
  int64_t c_stride;
  const float* bias;  // null: none
  const float* add;   // null: none
  int64_t add_stride;
};

/// Words of one precision from elements of one dtype.
struct MatmulPacking {
  /// to[words of n elements] = from[n]; an odd last element is paired with zero.
  void (*row)(uint32_t* to, const void* from, int64_t n);
  /// One step of a strip-packed matrix (see Strips) whose columns lie along a row: word j of the step is made
  /// from (row0[j], row1[j]) for j < cols, zero up to the last strip's width. row1 (null: zeros) is used by
  /// bf16 only.
  void (*step)(const Strips& to, int64_t step, const void* row0, const void* row1);
};

struct MatmulKernels {
  int64_t elements_per_word;  ///< 1: f32, 2: bf16
  /// One register tile of 1 <= rows <= kFewRows.
  void (*tile)(int rows, const MatmulTile& t);
  /// The same by a weight's rows as they lie.
  void (*few_rows)(int rows, const MatmulFewRows& t);
  MatmulPacking from_f32;
  MatmulPacking from_bf16;  ///< bf16 only
};

struct MatmulIsa {
  MatmulKernels f32;
  MatmulKernels bf16;
  /// to[s, j] = from[j, s] for s < steps, j < n; zero for n <= j < width. from_stride in words need not be
  /// whole, so it is in bytes; rows of bf16 may start at odd elements. Fetches each row so many bytes ahead.
  void (*transpose)(uint32_t* to, int64_t width, const void* from, int64_t from_stride_bytes, int64_t n,
                    int64_t steps, int64_t ahead_bytes);
};
namespace avx2 {
extern const MatmulIsa matmul;
}
namespace avx512 {
extern const MatmulIsa matmul;
}

}  // namespace moge::ops::cpu::vec
