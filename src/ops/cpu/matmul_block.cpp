#include "ops/cpu/matmul_block.h"

namespace moge::ops::cpu {

void multiply_block(const vec::MatmulKernels& kernels, const LeftRows& a, int64_t rows, const uint32_t* b,
                    const Panels& panels, int64_t panel, const BlockOutput& out, float* partial) {
  vec::MatmulTile t{};
  t.a_step = a.step_stride;
  t.b_width = panels.width_of(panel);
  t.cols = panels.cols_of(panel);
  t.add_stride = out.add_stride;
  const uint32_t* b_panel = b + panels.offset_of(panel);
  float* sums = out.accumulate ? out.c : partial;
  const int64_t sums_stride = out.accumulate ? out.c_stride : vec::kPanelCols;
  const int64_t tiles = (rows + vec::kTileRows - 1) / vec::kTileRows;
  // Tiles of near equal height: 8 rows run faster as 4 + 4 than as 6 + 2.
  const int64_t low = rows / tiles, higher = rows % tiles;
  const int64_t block_steps = tiles == 1 ? panels.steps : tiles <= 3 ? kFewTilesBlockSteps : kBlockSteps;
  // At least once: with an empty inner dimension c is still bias + add.
  for (int64_t step = 0; step == 0 || step < panels.steps; step += block_steps) {
    const bool last = step + block_steps >= panels.steps;
    t.steps = std::min(block_steps, panels.steps - step);
    t.b = b_panel + step * t.b_width;
    // The next step block (of this panel or, behind it, of the next) comes from L3 while this one is used.
    const int64_t block_bytes = block_steps * t.b_width * 4;
    t.prefetch = reinterpret_cast<const char*>(t.b) + block_bytes;
    t.prefetch_step = std::min(t.b_width * 4 / tiles, kAlignment);
    t.bias = last ? out.bias : nullptr;
    for (int64_t row = 0, tile = 0; tile < tiles; ++tile) {
      const int height = static_cast<int>(low + (tile < higher ? 1 : 0));
      for (int i = 0; i < height; ++i) t.a[i] = a.base + (row + i) * a.row_stride + step * a.step_stride;
      t.init = step > 0 || out.accumulate ? sums + row * sums_stride : nullptr;
      t.init_stride = sums_stride;
      t.c = last ? out.c + row * out.c_stride : sums + row * sums_stride;
      t.c_stride = last ? out.c_stride : sums_stride;
      t.add = last && out.add ? out.add + row * out.add_stride : nullptr;
      kernels.tile(height, t);
      t.prefetch += t.steps * t.prefetch_step;
      row += height;
    }
    if (last) break;
  }
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
