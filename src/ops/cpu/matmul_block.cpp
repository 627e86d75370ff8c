#include "ops/cpu/matmul_block.h"

#include "ops/cpu/rows.h"

namespace moge::ops::cpu {

namespace {

constexpr int64_t kLinesOfPanel = vec::kPanelCols * 4 / kAlignment;

}  // namespace

int64_t cut_blocks(const Groups& groups, int64_t threads, RowBlock* blocks) {
  int64_t count = 0;
  for (int64_t g = 0; g < groups.count(); ++g) {
    const int64_t rows = groups.end(g) - groups.begin(g);
    const int64_t parts = align_up((rows + kBlockRows - 1) / kBlockRows, threads);
    const int64_t height = parts == 0 ? 1 : align_up((rows + parts - 1) / parts, vec::kTileRows);
    const int64_t first = count, blocks_of_group = (rows + height - 1) / height;
    for (int64_t r = 0; r < rows; r += height)
      blocks[count++] = {g, groups.begin(g) + r, std::min(height, rows - r), first, blocks_of_group};
  }
  return count;
}

RowsAhead::RowsAhead(const void* base, int64_t stride, const int32_t* ids, int64_t count, int64_t bytes,
                     int64_t tiles)
    : base_(static_cast<const char*>(base)),
      stride_(stride),
      ids_(ids),
      lines_of_row_((bytes + kAlignment - 1) / kAlignment),
      lines_(count * lines_of_row_),
      tiles_(tiles) {}

RowsAhead::RowsAhead(const GatheredRows& rows, int64_t first, int64_t count, int64_t col, int64_t cols,
                     int64_t tiles)
    : RowsAhead(rows.base + col * rows.element + (rows.ids ? 0 : first * rows.stride), rows.stride,
                rows.ids ? rows.ids + first : nullptr, count, cols * rows.element, tiles) {}

bool RowsAhead::next_tile(vec::MatmulTile& t, bool waits, bool down) {
  const int64_t tile = tile_++;
  if (fetched_ >= lines_) return false;
  if (ids_) {
    for (const int64_t end = std::min(lines_, lines_ * (tile + 1) / tiles_); fetched_ < end; ++fetched_) {
      const int64_t row = fetched_ / lines_of_row_, line = fetched_ % lines_of_row_;
      __builtin_prefetch(base_ + ids_[row] * stride_ + line * kAlignment, 0, 2);
    }
    return false;
  }
  // Down the rows it is some lines of each, as many as a tile that waits fetches a step or fewer.
  const int64_t parts = down ? ceil_div(lines_of_row_, kLinesOfPanel) : 1;
  const int64_t unit = ceil_div(lines_of_row_, parts);
  if (fetched_ * tiles_ > lines_ * tile || (waits && unit > kLinesOfPanel)) return false;
  const int64_t rows = lines_ / lines_of_row_, at = fetched_ / unit, row = at % rows;
  const int64_t line = waits ? 0 : fetched_ % unit;
  t.ahead = base_ + row * stride_ + (at / rows * unit + line) * kAlignment;
  t.ahead_left = unit - line;
  t.ahead_step = waits ? stride_ : kAlignment;
  t.ahead_lines = unit;
  t.ahead_jump = stride_ - (unit - 1) * kAlignment;
  fetched_ += std::min(t.steps * t.panels * (waits ? unit : 1), (rows - row) * unit - line);
  return true;
}

int64_t block_steps(int64_t rows) {
  return num_tiles(rows) <= 3 ? kFewTilesBlockSteps : kBlockSteps;
}

void multiply_steps(const vec::MatmulKernels& kernels, const LeftRows& a, int64_t rows,
                    const StepBlock& steps, const Panels& panels, int64_t panel, const BlockOutput& out,
                    float* partial, RowsAhead* ahead) {
  // Tiles of near equal height: a low one waits for B as long as a higher.
  const int64_t tiles = num_tiles(rows);
  const int64_t low = rows / tiles, higher = rows % tiles;
  // More tiles than three take so many steps at a time that one would run past the rows' end.
  const bool down = vec::tile_waits(static_cast<int>(low)) && tiles <= 3;
  vec::MatmulTile t{};
  t.a_step = a.step_stride;
  t.b = steps.b;
  t.b_stride = steps.stride;
  t.b_width = panels.width_of(panel);
  t.steps = steps.count;
  t.cols = panels.cols_of(panel);
  t.panels = 1;
  t.init_stride = vec::kPanelCols;
  t.bias = steps.last ? out.bias : nullptr;
  t.c_stride = steps.last ? out.c_stride : vec::kPanelCols;
  t.add_stride = out.add_stride;
  t.stream = steps.last && out.stream;
  const auto* next = static_cast<const char*>(steps.next);
  const int64_t next_step = std::min(t.b_width * 4 / tiles, kAlignment);
  for (int64_t row = 0, tile = 0; tile < tiles; ++tile) {
    const int height = static_cast<int>(low + (tile < higher ? 1 : 0));
    for (int i = 0; i < height; ++i) t.a[i] = a.base + (row + i) * a.row_stride + steps.begin * a.step_stride;
    t.init = steps.begin > 0 ? partial + row * vec::kPanelCols : nullptr;
    t.c = steps.last ? out.c + row * out.c_stride : partial + row * vec::kPanelCols;
    t.add = steps.last && out.add ? out.add + row * out.add_stride : nullptr;
    const bool waits = vec::tile_waits(height);
    if (!ahead || !ahead->next_tile(t, waits, down)) {
      t.ahead_left = INT64_MAX;
      if (!next) {
        t.ahead = reinterpret_cast<const char*>(t.b);  // any line in cache
        t.ahead_step = 0;
      } else if (waits) {
        t.ahead = reinterpret_cast<const char*>(t.b) + kPrefetchBytes;
        t.ahead_step = t.b_stride * 4;
      } else {
        t.ahead = next;
        t.ahead_step = next_step;
        next += t.steps * next_step;
      }
    }
    kernels.tile(height, t);
    row += height;
  }
}

void multiply_block(const vec::MatmulKernels& kernels, const LeftRows& a, int64_t rows, const uint32_t* b,
                    const Panels& panels, int64_t panel, const BlockOutput& out, float* partial,
                    RowsAhead* ahead) {
  const int64_t width = panels.width_of(panel);
  const int64_t most = num_tiles(rows) == 1 ? panels.steps : block_steps(rows);
  StepBlock steps{};
  steps.b = b + panels.offset_of(panel);
  steps.stride = width;
  // At least once: with an empty inner dimension c is still bias + add.
  do {
    steps.count = std::min(most, panels.steps - steps.begin);
    steps.last = steps.begin + steps.count == panels.steps;
    // The next steps (of this panel or, behind it, of the next) come from L3 while these are used. Behind the
    // last, another thread may be writing.
    const bool more = !steps.last || panel + 1 < panels.count();
    steps.next = more ? steps.b + steps.count * width : steps.b;
    multiply_steps(kernels, a, rows, steps, panels, panel, out, partial, ahead);
    steps.b += steps.count * width;
    steps.begin += steps.count;
  } while (!steps.last);
}

int64_t panels_per_task(const Panels& panels, int64_t blocks, int64_t rows, int num_threads, int64_t least) {
  // A panel that is streamed from memory costs as much as some 16 rows of arithmetic on it.
  const int64_t panel_work =
      std::max<int64_t>(1, panels.steps * vec::kPanelCols * std::max<int64_t>(rows, 16));
  const int64_t long_enough = (int64_t{1} << 20) / panel_work;
  const int64_t many_enough = panels.count() * blocks / (int64_t{4} * num_threads);
  const int64_t best = std::max(std::min(long_enough, many_enough), least);
  // In equal parts: 21 panels as 11 + 10, not 16 + 5.
  const int64_t parts = std::max<int64_t>(1, panels.count() / std::max<int64_t>(best, 1));
  return std::max<int64_t>(1, (panels.count() + parts - 1) / parts);
}

}  // namespace moge::ops::cpu
