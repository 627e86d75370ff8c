// matmul_tn: the weight gradient c += a^T @ b, per group. The inner dimension is the rows. Each task owns a
// tile of c and walks the group's rows in chunks: it packs its columns of a and of b into a buffer that stays
// in L2 and multiplies them into c, which carries the sums from chunk to chunk. So nothing waits for
// anything, and a sum's order depends on nothing but its rows. A column is packed once for each tile across
// it, a few percent of the multiplication as long as tiles are large.
#include "ops/cpu/isa.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/matmul_block.h"
#include "ops/cpu/matmul_groups.h"
#include "ops/cpu/matmul_pack.h"

namespace moge::ops::cpu {

namespace {

/// Columns of `a` whose words lie together, [N / 48][steps][48]: three cache lines a step serve eight tiles
/// of six.
constexpr int64_t kStrip = 48;
/// Largest tile of c, and the words of packed operands that a task holds: 640 KB of the 1 MB of L2.
constexpr int64_t kMaxTileN = 8 * kStrip;
constexpr int64_t kMaxTileK = 4 * vec::kPanelCols;
constexpr int64_t kThreadWords = 160 * 1024;
constexpr int64_t kMinTileN = 2 * kStrip;
constexpr int64_t kMinTileK = 2 * vec::kPanelCols;
/// Up to so many steps c is most of what moves. So tiles are wide and multiplied along its rows, which
/// hardware follows, in one call for all panels, as a call costs some 100 cycles.
constexpr int64_t kFewSteps = 64;
constexpr int64_t kWideTileK = 8 * vec::kPanelCols;

constexpr int64_t div_up(int64_t n, int64_t by) {
  return (n + by - 1) / by;
}

/// How one group's c is cut.
struct Tiling {
  int64_t first_task;  ///< of all groups' tasks
  int64_t tile_n, tile_k;
  int64_t count_n, count_k;
  int64_t steps;  ///< packed at a time; even rows a chunk, so that bf16 pairs stay whole
  int64_t count() const { return count_n * count_k; }
};

int64_t num_groups(const MatmulTN& t) {
  return t.offsets ? t.offsets.dim(0) - 1 : 1;
}
int64_t tilings_bytes(const MatmulTN& t) {
  return align_up(num_groups(t) * static_cast<int64_t>(sizeof(Tiling)));
}
int64_t num_rows(const MatmulTN& t) {
  return t.a_row_ids ? t.a_row_ids.dim(0) : t.a.dim(0);
}

class OuterProduct {
 public:
  OuterProduct(ExecContext& ctx, const MatmulTN& t, const vec::MatmulIsa& isa, std::span<std::byte> ws)
      : pool_(*ctx.pool),
        t_(t),
        kernels_(t.compute == DType::kBF16 ? isa.bf16 : isa.f32),
        per_word_(kernels_.elements_per_word),
        N_(t.c.dim(-2)),
        K_(t.c.dim(-1)),
        groups_("matmul_tn", t.offsets, num_rows(t)),
        a_rows_(t.a, t.a_row_ids),
        b_rows_(t.b, t.b_row_ids),
        tilings_(reinterpret_cast<Tiling*>(ws.data())),
        buffers_(reinterpret_cast<uint32_t*>(ws.data() + tilings_bytes(t))) {}

  void run() {
    if (N_ == 0 || K_ == 0) return;
    int64_t tasks = 0;
    for (int64_t g = 0; g < groups_.count(); ++g) {
      tilings_[g] = cut(groups_.end(g) - groups_.begin(g));
      tilings_[g].first_task = tasks;
      tasks += tilings_[g].count();
    }
    pool_.run_ranges(tasks, [&](int64_t task, int thread) {
      const Tile next = task + 1 < tasks ? tile_of(task + 1) : Tile{};
      multiply(tile_of(task), next, thread);
    });
  }

 private:
  /// Tiles as large as L2 allows, but no task longer than half a thread's share of the whole; or than its
  /// share, where that gives every thread as many.
  Tiling cut(int64_t rows) const {
    if (rows == 0) return {};
    const int64_t all_rows = groups_.end(groups_.count() - 1) - groups_.begin(0);
    const int64_t threads = pool_.num_threads();
    const int64_t share = all_rows * N_ * K_ / rows / threads;
    const int64_t most_k = div_up(rows, per_word_) <= kFewSteps ? kWideTileK : kMaxTileK;
    const Tiling even = cut_tiles(share, most_k);
    return rows == all_rows && even.count() % threads == 0 ? even : cut_tiles(share / 2, most_k);
  }

  /// Tiles of up to `most` elements of c, `most_k` wide, or of the least size.
  Tiling cut_tiles(int64_t most, int64_t most_k) const {
    Tiling t{0, kMaxTileN, most_k, 0, 0, 0};
    while (t.tile_n * t.tile_k > most && (t.tile_n > kMinTileN || t.tile_k > kMinTileK)) {
      if (t.tile_n > kMinTileN && 2 * t.tile_n > t.tile_k)
        t.tile_n -= vec::kPanelUnit;
      else
        t.tile_k -= vec::kPanelCols;
    }
    t.count_n = div_up(N_, t.tile_n);
    t.count_k = div_up(K_, t.tile_k);
    // The last tile not smaller than the others.
    t.tile_n = align_up(div_up(N_, t.count_n), vec::kPanelUnit);
    t.tile_k = align_up(div_up(K_, t.count_k), vec::kPanelUnit);
    t.steps = std::min(kBlockSteps, kThreadWords / (t.tile_n + t.tile_k)) & ~int64_t{1};
    return t;
  }

  /// One task's tile of a group's c.
  struct Tile {
    int64_t group = 0;
    int64_t n = 0, k = 0;
    int64_t cols_n = 0, cols_k = 0;
    int64_t chunk_rows = 0;  ///< packed at a time
  };

  Tile tile_of(int64_t task) const {
    int64_t g = groups_.count() - 1;
    while (tilings_[g].first_task > task) --g;
    const Tiling& tiling = tilings_[g];
    const int64_t tile = task - tiling.first_task;
    const int64_t n = tile % tiling.count_n * tiling.tile_n, k = tile / tiling.count_n * tiling.tile_k;
    return {g,
            n,
            k,
            std::max<int64_t>(0, std::min(tiling.tile_n, N_ - n)),
            std::max<int64_t>(0, std::min(tiling.tile_k, K_ - k)),
            tiling.steps * per_word_};
  }

  /// `next` is what the thread probably multiplies then.
  void multiply(const Tile& tile, const Tile& next, int thread) const {
    const int64_t cols_n = tile.cols_n, cols_k = tile.cols_k;
    if (cols_n == 0 || cols_k == 0) return;
    uint32_t* a = buffers_ + thread * kThreadWords;
    uint32_t* b = a + tile.chunk_rows / per_word_ * align_up(cols_n, vec::kPanelUnit);
    float* c = t_.c.ptr<float>() + (t_.offsets ? tile.group * t_.c.stride(0) : 0) + tile.n * t_.c.stride(-2) +
               tile.k;
    // In the first part of a chunk's strips, columns of a are fetched for the next chunk, then columns of b.
    const int64_t a_strips = cols_n * div_up(cols_n, kStrip) / (cols_n + cols_k);
    const int64_t end = groups_.end(tile.group);
    for (int64_t r = groups_.begin(tile.group); r < end; r += tile.chunk_rows) {
      const int64_t rows = std::min(tile.chunk_rows, end - r);
      const Panels panels(rows, cols_k, per_word_);
      pack(packing_of(kernels_, t_.a.dtype), a_rows_, r, rows, tile.n, {a, panels.steps, cols_n, kStrip});
      pack(packing_of(kernels_, t_.b.dtype), b_rows_, r, rows, tile.k, panels.strips(b));
      const bool last = r + rows == end;
      const Tile& then = last ? next : tile;
      const int64_t then_row = last ? groups_.begin(next.group) : r + rows;
      const int64_t then_rows = std::min(then.chunk_rows, groups_.end(then.group) - then_row);
      const int64_t together = panels.steps <= kFewSteps ? panels.count() : 1;  // panels
      const int64_t calls = div_up(panels.count(), together);
      const int64_t a_calls = a_strips * (kStrip / vec::kTileRows) * calls;
      RowsAhead a_ahead(a_rows_, then_row, then_rows, then.n, then.cols_n, a_calls);
      RowsAhead b_ahead(b_rows_, then_row, then_rows, then.k, then.cols_k,
                        num_tiles(cols_n) * calls - a_calls);
      for (int64_t strip = 0; strip < cols_n; strip += kStrip) {
        const int64_t width = std::min(kStrip, cols_n - strip);
        const LeftRows left{a + strip * panels.steps, 1, align_up(width, vec::kPanelUnit)};
        for (int64_t panel = 0; panel < panels.count(); panel += together)
          multiply_strip(left, width, b, panels, panel, std::min(panel + together, panels.count()),
                         c + strip * t_.c.stride(-2), strip < a_strips * kStrip ? a_ahead : b_ahead);
      }
    }
  }

  /// The columns of panels first .. last - 1 of c[rows, panels.cols] += left @ b.
  void multiply_strip(const LeftRows& left, int64_t rows, const uint32_t* b, const Panels& panels,
                      int64_t first, int64_t last, float* c, RowsAhead& ahead) const {
    const int64_t whole = std::min(panels.cols / vec::kPanelCols, last);
    const int64_t tiles = num_tiles(rows), low = rows / tiles, higher = rows % tiles;
    vec::MatmulTile t{};
    t.a_step = left.step_stride;
    t.steps = panels.steps;
    t.init_stride = t.c_stride = t_.c.stride(-2);
    for (int64_t tile = 0, row = 0; tile < tiles; ++tile) {
      const int height = static_cast<int>(low + (tile < higher ? 1 : 0));
      for (int i = 0; i < height; ++i) t.a[i] = left.base + (row + i) * left.row_stride;
      for (int64_t panel = first; panel < last; panel += t.panels) {
        t.panels = std::max<int64_t>(1, whole - panel);
        t.b = b + panels.offset_of(panel);
        t.b_stride = t.b_width = panels.width_of(panel);
        t.cols = panels.cols_of(panel);
        t.init = t.c = c + row * t.c_stride + panel * vec::kPanelCols;
        if (!ahead.next_tile(t, vec::tile_waits(height), false)) {
          t.ahead = reinterpret_cast<const char*>(t.b);  // any line in cache
          t.ahead_left = INT64_MAX;
          t.ahead_step = 0;
        }
        // Down the columns c comes in runs of a few cache lines, which no hardware follows.
        if (panels.steps > kFewSteps)
          for (int64_t i = height; i < std::min<int64_t>(height + vec::kTileRows, rows - row); ++i)
            prefetch_row(reinterpret_cast<const std::byte*>(t.c + i * t.c_stride), t.cols * 4);
        kernels_.tile(height, t);
      }
      row += height;
    }
  }

  /// Columns col.. of rows first .. first+rows-1.
  void pack(const vec::MatmulPacking& packing, const GatheredRows& source, int64_t first, int64_t rows,
            int64_t col, const vec::Strips& to) const {
    const int64_t bytes = to.cols * source.element, ahead = prefetch_rows(bytes);
    for (int64_t step = 0; step < to.steps; ++step) {
      const int64_t r = step * per_word_;
      for (int64_t i = r + ahead; i < std::min(r + ahead + per_word_, rows); ++i)
        prefetch_row(source.at(first + i, col), bytes);
      const bool pair = per_word_ == 2 && r + 1 < rows;
      packing.step(to, step, source.at(first + r, col), pair ? source.at(first + r + 1, col) : nullptr);
    }
  }

  ThreadPool& pool_;
  const MatmulTN& t_;
  const vec::MatmulKernels& kernels_;
  const int64_t per_word_;
  const int64_t N_, K_;
  const Groups groups_;
  const GatheredRows a_rows_, b_rows_;
  Tiling* tilings_;
  uint32_t* buffers_;
};

template <const vec::MatmulIsa& isa>
void run_outer(ExecContext& ctx, const MatmulTN& t, std::span<std::byte> ws) {
  OuterProduct(ctx, t, isa, ws).run();
}

int64_t workspace(const ExecContext& ctx, const MatmulTN& t) {
  return tilings_bytes(t) + ctx.pool->num_threads() * kThreadWords * 4;
}

Refusal supports_avx512(const MatmulTN& t) {
  const Refusal no = needs_avx512(t);
  if (no.empty() && t.compute == DType::kBF16 && !cpu_info().avx512_bf16)
    return "this CPU has no AVX-512 BF16 (vdpbf16ps)";
  return no;
}

}  // namespace

std::vector<Impl<MatmulTN>> matmul_tn_impls() {
  return {{"cpu.avx512", DeviceKind::kCpu, supports_avx512, run_outer<vec::avx512::matmul>, workspace},
          {"cpu.avx2", DeviceKind::kCpu, needs_avx2<MatmulTN>, run_outer<vec::avx2::matmul>, workspace},
          {"cpu.ref", DeviceKind::kCpu, supports_all<MatmulTN>, matmul_tn_ref, nullptr}};
}

}  // namespace moge::ops::cpu
