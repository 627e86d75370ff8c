// The step between whole products and register tiles: a block of rows times one panel.
#pragma once
#include <cstddef>
#include <cstdint>

#include "ops/cpu/matmul_groups.h"
#include "ops/cpu/matmul_panels.h"
#include "ops/cpu/vec/matmul.h"

namespace moge::ops::cpu {

/// Rows of one block; with a panel's 64 columns about 10 us of work at an inner dimension of 256. A multiple
/// of the tile's 6.
inline constexpr int64_t kBlockRows = 96;
/// Up to kBlockRows rows of one group.
struct RowBlock {
  int64_t group;
  int64_t begin;
  int64_t rows;
  int64_t first_of_group = 0, blocks_of_group = 1;  ///< index and number of the group's blocks
};

/// All groups' rows in blocks of near equal height, written to `blocks`; returns how many. Of each group so
/// many that they come out even on `threads`, where rows suffice.
int64_t cut_blocks(const Groups& groups, int64_t threads, RowBlock* blocks);
/// The most that cut_blocks makes of R rows.
constexpr int64_t max_row_blocks(int64_t groups, int64_t threads, int64_t R) {
  return R / kBlockRows + std::min(groups * threads, R);
}

/// Steps after which a block turns back to its first tile: 512 x 64 words of B (128 KB) stay in L2 and a
/// tile's rows of A (12 KB) in L1. A tile costs some 240 cycles beside its 12 a step, so fewer steps are
/// slower.
inline constexpr int64_t kBlockSteps = 512;

/// Two or three tiles wait for B, not for arithmetic: a block of B that the first has read stays in L1.
inline constexpr int64_t kFewTilesBlockSteps = 64;

/// Packed left-hand rows: word s of row i is at base + i * row_stride + s * step_stride.
struct LeftRows {
  const uint32_t* base;
  int64_t row_stride;
  int64_t step_stride;
};

/// Rows that a thread packs (or multiplies by) next: tiles fetch them into L2, so that memory works while
/// they do. A tile fetches one line a step (four, if of few rows: vec/matmul.h) or, where that would be ahead
/// of an even pace over all tiles, nothing. Gathered rows are fetched before the tile, as many lines as keep
/// the pace.
class RowsAhead {
 public:
  /// `count` rows of `bytes` bytes, row i at base + (ids ? ids[i] : i) * stride bytes, in the course of
  /// `tiles` tiles.
  RowsAhead(const void* base, int64_t stride, const int32_t* ids, int64_t count, int64_t bytes,
            int64_t tiles);
  /// `cols` columns from `col` of rows first .. first + count - 1.
  RowsAhead(const GatheredRows& rows, int64_t first, int64_t count, int64_t col, int64_t cols, int64_t tiles);
  /// Sets what t, the next tile, fetches; false: it has nothing to fetch and is left as it was. `waits`: it
  /// waits for memory (vec::tile_waits), so it can fetch down the rows only. `down`: so do all tiles of its
  /// block, for one order among them.
  bool next_tile(vec::MatmulTile& t, bool waits, bool down);

 private:
  const char* base_;
  int64_t stride_;
  const int32_t* ids_;
  int64_t lines_of_row_, lines_;
  int64_t fetched_ = 0;  ///< lines
  int64_t tiles_, tile_ = 0;
};

struct BlockOutput {
  float* c;  ///< at the panel's first column
  int64_t c_stride;
  const float* bias;  ///< null: none
  const float* add;   ///< null: none
  int64_t add_stride;
  bool stream;  ///< see vec::MatmulTile
};

/// Steps of one panel.
struct StepBlock {
  const uint32_t* b;  ///< [count, the panel's width]
  int64_t stride;     ///< words from step to step
  int64_t begin;      ///< of the panel's steps
  int64_t count;
  /// As many bytes as b has: fetched into L2 by tiles that have no rows to fetch. Null: none.
  const void* next;
  bool last;  ///< then bias and `add` follow
};
/// Bytes of packed weights fetched ahead of use by tiles that wait for memory: two pages, because the
/// hardware prefetcher stops at each page's end.
inline constexpr int64_t kPrefetchBytes = 8192;

/// Register tiles of a block.
constexpr int64_t num_tiles(int64_t rows) {
  return rows <= vec::kFewRows ? 1 : (rows + vec::kTileRows - 1) / vec::kTileRows;
}
/// Whether all of a block's tiles are so low that they fetch as fast as they read B.
constexpr bool tiles_wait(int64_t rows) {
  return rows <= vec::kFewRows && vec::tile_waits(static_cast<int>(rows));
}
/// How many steps a product of `rows` rows takes at a time.
int64_t block_steps(int64_t rows);
/// c[rows, panel's columns] from these steps and, unless they are the first, from those before: `partial`
/// [rows, kPanelCols] holds the sums meanwhile (c cannot: it may be `add`).
void multiply_steps(const vec::MatmulKernels& kernels, const LeftRows& a, int64_t rows,
                    const StepBlock& steps, const Panels& panels, int64_t panel, const BlockOutput& out,
                    float* partial, RowsAhead* ahead = nullptr);

/// The same from all steps of a panel of the packed b.
void multiply_block(const vec::MatmulKernels& kernels, const LeftRows& a, int64_t rows, const uint32_t* b,
                    const Panels& panels, int64_t panel, const BlockOutput& out, float* partial,
                    RowsAhead* ahead = nullptr);

/// How many panels one task takes, so that tasks are long beside the pool's hand-over and still many beside
/// its threads; not under `least` unless there are fewer.
int64_t panels_per_task(const Panels& panels, int64_t blocks, int64_t rows, int num_threads,
                        int64_t least = 1);

}  // namespace moge::ops::cpu
