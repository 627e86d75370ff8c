#include "ops/cpu/quant_panels.h"

#include <array>
#include <cstring>

#include "core/cpu_info.h"
#include "ops/cpu/matmul_block.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/scratch.h"

namespace moge::ops::cpu {

namespace {

constexpr int64_t kWordBytes = 4;
constexpr uint32_t kSigns = 0x80808080U;  ///< w + 128 of each byte, by an exclusive or

Panels panels_of(const Tensor& w) {
  return {w.dim(-1), w.dim(-2), kWordBytes};
}

/// Rows that come out even on the threads, where panels may not; few are not worth a block each.
int64_t block_threads(const ThreadPool& pool, const QuantMatmul& a) {
  constexpr int64_t kManyRows = 4 * vec::kQuantTileRows;
  return a.offsets || a.c.dim(0) < kManyRows ? 1 : pool.num_threads();
}

struct Memory {
  Memory(const ThreadPool& pool, const QuantMatmul& a, Scratch& scratch)
      : starts(scratch.take<int32_t>(a.a.dim(0))),
        blocks(scratch.take<RowBlock>(
            max_row_blocks(a.offsets ? a.offsets.dim(0) - 1 : 1, block_threads(pool, a), a.c.dim(0)))) {}
  int32_t* starts;  // [T or R]: what the sums of a row of a begin with
  RowBlock* blocks;
};

/// c in pieces: a block of rows times a panel.
class Pieces {
 public:
  Pieces(const QuantMatmul& a, const Memory& memory)
      : a_(a), panels_(panels_of(a.w)), starts_(memory.starts), blocks_(memory.blocks) {}

  void run(ThreadPool& pool) {
    const Groups groups("quant_matmul", a_.offsets, a_.c.dim(0));
    const int64_t num_blocks = cut_blocks(groups, block_threads(pool, a_), blocks_);
    if (num_blocks == 0) return;
    const int64_t K = a_.w.dim(-1);
    parallel_for(pool, a_.a.dim(0), rows_per_task(K), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        starts_[t] = static_cast<int32_t>(0U - 128U * static_cast<uint32_t>(kernels_.sum(row(t), K)));
    });
    // Pieces with the same weights follow each other, and those of a block lie one behind the other, so that
    // a thread reads the weights forward.
    pool.run_ranges(num_blocks * panels_.count(), [&](int64_t piece, int) {
      const RowBlock& any = blocks_[piece / panels_.count()];
      const int64_t in_group = piece - any.first_of_group * panels_.count();
      multiply(blocks_[any.first_of_group + in_group % any.blocks_of_group], in_group / any.blocks_of_group);
    });
  }

 private:
  void multiply(const RowBlock& block, int64_t panel) const {
    const Rows<float> a_scale(a_.a_scale), row_weight(a_.row_weight);
    const int64_t N = panels_.cols, col = panel * vec::kPanelCols, width = panels_.width_of(panel);
    const int64_t c_element = size_of(a_.c.dtype), c_col = a_.silu_mul ? col / 2 : col;
    const auto* b =
        static_cast<const uint32_t*>(a_.w.data) + block.group * panels_.words() + panels_.offset_of(panel);
    const int64_t tiles = ceil_div(block.rows, vec::kQuantTileRows), height = ceil_div(block.rows, tiles);
    const int64_t parts = tiles == 1 ? 1 : ceil_div(panels_.steps, block_steps(block.rows));
    const int64_t most = ceil_div(panels_.steps, parts);
    alignas(kAlignment) std::array<int32_t, (kBlockRows + vec::kQuantTileRows) * vec::kQuantCols> sums;
    vec::QuantPanelTile t{};
    t.cols = width;
    t.out.w_scale = a_.w_scale.ptr<float>() + (a_.offsets ? block.group * a_.w_scale.stride(0) : 0) + col;
    t.out.bias = a_.bias ? a_.bias.ptr<float>() + col : nullptr;
    t.out.c_bf16 = a_.c.dtype == DType::kBF16;
    t.out.silu_mul = a_.silu_mul;
    for (int64_t step = 0; step < panels_.steps; step += most) {
      t.steps = std::min(most, panels_.steps - step);
      t.b = b + step * width;
      t.first = step == 0;
      t.last = step + t.steps == panels_.steps;
      const bool more = !t.last || col + width < N;
      const auto* next = reinterpret_cast<const char*>(more ? t.b + t.steps * width : t.b);
      for (int64_t begin = 0; begin < block.rows; begin += height) {
        t.rows = static_cast<int>(std::min(height, block.rows - begin));
        t.sums = sums.data() + begin * vec::kQuantCols;
        for (int i = 0; i < t.rows; ++i) {
          const int64_t r = block.begin + begin + i, token = token_of(r);
          t.a[i] = row(token) + step * kWordBytes;
          t.start[i] = starts_[token];
          t.out.a_scale[i] = *a_scale[token];
          t.out.row_weight[i] = row_weight ? *row_weight[r] : 1;
          t.out.c[i] = static_cast<char*>(a_.c.data) + (r * a_.c.stride(0) + c_col) * c_element;
        }
        if (t.rows <= vec::kQuantWaitingRows) {
          t.ahead = reinterpret_cast<const char*>(t.b) + kPrefetchBytes;
          t.ahead_step = width * kWordBytes;
        } else {
          t.ahead = next;
          t.ahead_step = std::min(width * kWordBytes / tiles, kAlignment);
          next += t.steps * t.ahead_step;
        }
        kernels_.tile(t);
      }
    }
  }

  int64_t token_of(int64_t r) const { return a_.row_ids ? a_.row_ids.ptr<int32_t>()[r] : r; }
  const char* row(int64_t token) const {
    return static_cast<const char*>(a_.a.data) + token * a_.a.stride(0);
  }

  const QuantMatmul& a_;
  const vec::QuantPanelKernels& kernels_ = vec::avx512::quant_panels;
  const Panels panels_;
  int32_t* starts_;
  RowBlock* blocks_;
};

}  // namespace

Tensor pack_quant_weight(ExecContext& ctx, const Tensor& w) {
  const int64_t N = w.dim(-2), K = w.dim(-1);
  // AVX2's kernels read rows, and MOGE_IMPL may leave only them.
  const bool read = forced_impl("quant_matmul").name != "cpu.avx2";
  if (!read || w.dtype != DType::kI8 || !w.is_contiguous() || w.numel() == 0 || N % vec::kPanelUnit != 0 ||
      K % kWordBytes != 0 || !cpu_info().avx512_vnni)
    return w;
  const Panels panels = panels_of(w);
  const int64_t num_panels = (w.shape.ndim() == 3 ? w.dim(0) : 1) * panels.count();
  const int64_t copy_words = vec::kPanelCols * panels.steps;
  const Buffer copies(ctx.pool->num_threads() * copy_words * kWordBytes, "pack_quant_weight");
  ctx.pool->run(num_panels, [&](int64_t task, int thread) {
    const int64_t panel = task % panels.count(), width = panels.width_of(panel);
    uint32_t* rows =
        static_cast<uint32_t*>(w.data) + task / panels.count() * panels.words() + panels.offset_of(panel);
    uint32_t* copy = reinterpret_cast<uint32_t*>(copies.data()) + thread * copy_words;
    for (int64_t i = 0; i < width * panels.steps; ++i) copy[i] = rows[i] ^ kSigns;
    vec::avx512::matmul.transpose(rows, width, copy, panels.steps * kWordBytes, width, panels.steps, 0);
  });
  Tensor packed = w;
  packed.layout = Layout::kPanels;
  return packed;
}

OwnedTensor unpack_quant_weight(const Tensor& w) {
  OwnedTensor plain(w.dtype, w.shape);
  const Panels panels = panels_of(w);
  const auto* words = static_cast<const uint32_t*>(w.data);
  for (int64_t row = 0; row < w.numel() / w.dim(-1); ++row) {
    const int64_t n = row % panels.cols, panel = n / vec::kPanelCols;
    const uint32_t* word =
        words + row / panels.cols * panels.words() + panels.offset_of(panel) + n % vec::kPanelCols;
    for (int64_t s = 0; s < panels.steps; ++s, word += panels.width_of(panel)) {
      const uint32_t bytes = *word ^ kSigns;
      std::memcpy(plain->ptr<int8_t>() + row * w.dim(-1) + s * kWordBytes, &bytes, kWordBytes);
    }
  }
  return plain;
}

int64_t quant_panels_workspace(const ExecContext& ctx, const QuantMatmul& a) {
  Scratch scratch;
  const Memory counted(*ctx.pool, a, scratch);
  return scratch.used_bytes();
}

void multiply_quant_panels(ExecContext& ctx, const QuantMatmul& a, std::span<std::byte> workspace) {
  Scratch scratch(workspace);
  Pieces(a, Memory(*ctx.pool, a, scratch)).run(*ctx.pool);
}

}  // namespace moge::ops::cpu
