#include "ops/cpu/matmul_pack.h"

#include <cstring>

#include "core/cpu_info.h"
#include "ops/cpu/matmul.h"

namespace moge::ops::cpu {

namespace {

/// Bytes that are fetched ahead along a row that becomes a column.
constexpr int64_t kRowBytesAhead = 512;

/// Steps that pack_panels fetches ahead, into L2: rows a power of two apart share too few sets of L1.
constexpr int64_t kPanelStepsAhead = 32;

/// Steps (of one or two rows each) that make a packing task where columns lie along rows: as many as leave
/// each thread some tasks, because a stream that is cut begins with a cold prefetcher.
constexpr int64_t kLeastPackSteps = 16;
constexpr int64_t kMostPackSteps = 128;

/// Columns of the panel are rows of w: w[n, :] becomes column n.
void pack_columns(const vec::MatmulIsa& isa, const Tensor& w, const Panels& panels, int64_t panel,
                  int64_t begin, int64_t count, int64_t ahead_bytes, uint32_t* to) {
  const int64_t element = size_of(w.dtype);
  const int64_t per_word = 4 / element;
  const int64_t stride = w.stride(0) * element;
  const int64_t cols = panels.cols_of(panel), width = panels.width_of(panel);
  const auto* rows = static_cast<const std::byte*>(w.data) + panel * vec::kPanelCols * stride;
  const int64_t whole = std::min(count, w.dim(1) / per_word - begin);
  isa.transpose(to, width, rows + begin * 4, stride, cols, whole, ahead_bytes);
  if (whole == count) return;
  // An odd inner dimension in bf16: the last element's partner is zero.
  uint32_t* last = to + whole * width;
  std::memset(last, 0, static_cast<size_t>(width) * 4);
  for (int64_t j = 0; j < cols; ++j)
    std::memcpy(last + j, rows + j * stride + (begin + whole) * 4, static_cast<size_t>(element));
}

/// Step s of columns col.. of w, which become columns of `to`, as its step to_step.
void pack_step(const vec::MatmulIsa& isa, const Tensor& w, int64_t s, int64_t col, const vec::Strips& to,
               int64_t to_step) {
  const int64_t stride = w.stride(0);
  if (w.dtype == DType::kBF16) {
    const auto* row = static_cast<const uint16_t*>(w.data) + 2 * s * stride + col;
    isa.bf16.from_bf16.step(to, to_step, row, 2 * s + 1 < w.dim(0) ? row + stride : nullptr);
  } else {
    isa.f32.from_f32.step(to, to_step, static_cast<const float*>(w.data) + s * stride + col, nullptr);
  }
}

}  // namespace

void pack_panels(const vec::MatmulIsa& isa, const Tensor& w, bool transposed, const Panels& panels,
                 int64_t first, int64_t last, int64_t begin, int64_t count, bool fetched, uint32_t* to) {
  if (!transposed) {
    for (int64_t panel = first; panel < last; ++panel)
      pack_columns(isa, w, panels, panel, begin, count, fetched ? 0 : kRowBytesAhead,
                   to + (panel - first) * vec::kPanelCols * count);
    return;
  }
  const int64_t col = first * vec::kPanelCols;
  const vec::Strips strip{to, count, std::min(last * vec::kPanelCols, panels.cols) - col, vec::kPanelCols};
  // A row gives a few cache lines here, and the next is far away: no hardware follows that.
  const int64_t element = size_of(w.dtype), bytes = strip.cols * element;
  const auto fetch = [&](int64_t row) {
    if (row >= w.dim(0)) return;
    const auto* at = static_cast<const std::byte*>(w.data) + (row * w.stride(0) + col) * element;
    for (int64_t i = 0; i < bytes; i += kAlignment) __builtin_prefetch(at + i, 0, 2);
  };
  const int64_t per_word = 4 / element;
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t i = 0; i < per_word; ++i) fetch((begin + s + kPanelStepsAhead) * per_word + i);
    pack_step(isa, w, begin + s, col, strip, s);
  }
}

void pack_weights(ThreadPool& pool, const vec::MatmulIsa& isa, const Tensor& w, bool transposed,
                  const Groups& groups, const Panels& panels, uint32_t* to) {
  // Rows are read along their whole length, columns a panel's 64 rows at a time: memory likes both.
  const int64_t many_enough = groups.count() * panels.steps / (int64_t{8} * pool.num_threads());
  const int64_t part_steps = transposed ? std::clamp(many_enough, kLeastPackSteps, kMostPackSteps) : 512;
  const int64_t parts = (panels.steps + part_steps - 1) / part_steps;
  const int64_t tasks = transposed ? parts : parts * panels.count();
  pool.run(panels.count() == 0 ? 0 : groups.count() * tasks, [&](int64_t task, int) {
    const int64_t g = task / tasks;
    if (groups.begin(g) == groups.end(g)) return;
    const Tensor weight = w.shape.ndim() == 3 ? w[g] : w;
    const int64_t step = task % parts * part_steps;
    const int64_t step_end = std::min(step + part_steps, panels.steps);
    uint32_t* data = to + g * panels.words();
    if (transposed) {
      for (int64_t s = step; s < step_end; ++s) pack_step(isa, weight, s, 0, panels.strips(data), s);
      return;
    }
    const int64_t panel = task % tasks / parts;
    pack_columns(isa, weight, panels, panel, step, step_end - step, kRowBytesAhead,
                 data + panels.offset_of(panel) + step * panels.width_of(panel));
  });
}

Tensor pack_weight(ExecContext& ctx, const Tensor& w) {
  const int64_t N = w.dim(-2), K = w.dim(-1);
  const bool dtype_ok = w.dtype == DType::kF32 || w.dtype == DType::kBF16;
  if (!dtype_ok || !w.is_contiguous() || !can_pack_in_place(N, K) || !cpu_info().avx2) return w;
  const vec::MatmulIsa& isa = cpu_info().avx512 ? vec::avx512::matmul : vec::avx2::matmul;
  const Panels panels(K, N, 4 / size_of(w.dtype));
  const int64_t num_panels = (w.shape.ndim() == 3 ? w.dim(0) : 1) * panels.count();
  // A panel takes exactly the bytes of the weight rows that it holds, so panels can be packed one by one
  // through a copy.
  const int64_t copy_words = vec::kPanelCols * panels.steps;
  const Buffer copies(ctx.pool->num_threads() * copy_words * 4, "pack_weight");
  ctx.pool->run(num_panels, [&](int64_t task, int thread) {
    const int64_t panel = task % panels.count();
    uint32_t* rows =
        static_cast<uint32_t*>(w.data) + task / panels.count() * panels.words() + panels.offset_of(panel);
    uint32_t* copy = reinterpret_cast<uint32_t*>(copies.data()) + thread * copy_words;
    std::memcpy(copy, rows, static_cast<size_t>(panels.width_of(panel) * panels.steps) * 4);
    isa.transpose(rows, panels.width_of(panel), copy, panels.steps * 4, panels.cols_of(panel), panels.steps,
                  0);
  });
  Tensor packed = w;
  packed.layout = Layout::kPanels;
  return packed;
}

}  // namespace moge::ops::cpu
