// matmul_nt and matmul_nn: rows of activations times a weight, per group. Many rows: first the weight is
// packed (unless it already is), then blocks of rows are packed and multiplied, by one task, so that they are
// still in L2. Few rows are packed once for all threads, because every thread takes some columns of each; the
// weight is then packed piece by piece where it is multiplied by all of them, and never leaves L2.
#include <optional>

#include "ops/cpu/isa.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/matmul_block.h"
#include "ops/cpu/matmul_groups.h"
#include "ops/cpu/matmul_pack.h"
#include "ops/cpu/rows.h"

namespace moge::ops::cpu {

namespace {

/// What NT and NN share: c[R, cols] = a[R, inner] times the weight.
struct RowsProduct {
  explicit RowsProduct(const MatmulNT& n)
      : op("matmul_nt"),
        c(n.c),
        a(n.a),
        w(n.w),
        bias(n.bias),
        add(n.add),
        offsets(n.offsets),
        row_ids(n.row_ids),
        transposed(false),
        inner(n.w.dim(-1)) {}
  explicit RowsProduct(const MatmulNN& n)
      : op("matmul_nn"),
        c(n.c),
        a(n.a),
        w(n.w),
        add(n.add),
        offsets(n.offsets),
        row_ids(n.row_ids),
        transposed(true),
        inner(n.w.dim(-2)) {}
  const char* op;
  Tensor c, a, w, bias, add, offsets, row_ids;
  bool transposed;  ///< the inner dimension is the weight's first
  int64_t inner;

  bool bf16() const { return w.dtype == DType::kBF16; }
  Panels panels() const { return {inner, c.dim(1), bf16() ? 2 : 1}; }
  int64_t num_groups() const { return offsets ? offsets.dim(0) - 1 : 1; }
};

/// Columns over which a task must use the rows it packs: packing costs as much as some 16 columns.
constexpr int64_t kMinPanelsPerPacking = 8;

/// That a task packs before it multiplies by them: the steps of one panel, or as many words of several.
constexpr int64_t kPanelBlockWords = kBlockSteps * vec::kPanelCols;

/// Neighbouring panels that a task packs together.
constexpr int64_t kMostPanelsTogether = 4;

/// Most rows in groups that are packed before they are multiplied.
constexpr int64_t kMostGroupedRows = 4096;

/// An output of so many bytes is written past the caches: whoever reads it finds most of it in memory either
/// way, and its lines are not fetched before they are written.
constexpr int64_t kStreamBytes = int64_t{8} << 20;

bool streams(const Tensor& c) {
  const auto aligned = [](auto bytes) { return bytes % kAlignment == 0; };
  return c.numel() * 4 >= kStreamBytes && aligned(reinterpret_cast<uintptr_t>(c.data)) &&
         aligned(c.stride(0) * 4);
}

/// Whether all steps of two panels or more fit what a task packs.
bool is_short(const Panels& panels) {
  return 2 * panels.steps <= kBlockSteps;
}

/// Most rows that are packed before they are multiplied. More in groups, whose weights are then packed by
/// piece and stay in L2; but all of these rows lie in the workspace.
int64_t most_shared_rows(const RowsProduct& p, int num_threads) {
  const int64_t most = 4 * kBlockRows * num_threads;
  if (p.w.layout == Layout::kPanels || (p.transposed && !is_short(p.panels()))) return most;
  return std::max(most, std::min(4 * kBlockRows * p.num_groups(), kMostGroupedRows));
}

/// Sizes of the workspace's parts for R rows, from shapes alone.
struct Plan {
  Plan(const RowsProduct& p, int64_t R, int num_threads) : panels(p.panels()) {
    a_stride = align_up(panels.steps, 16) + 16;  // not a multiple of 4 KiB: six rows would share L1 sets
    shared_rows = R <= most_shared_rows(p, num_threads);
    // One panel gives one task a block: then it is the blocks that must come out even.
    block_threads = p.num_groups() == 1 && panels.count() < num_threads ? num_threads : 1;
    max_blocks = max_row_blocks(p.num_groups(), block_threads, R);
    const int64_t packed_rows = shared_rows ? R : num_threads * kBlockRows;
    const bool packed = p.w.layout == Layout::kPanels;
    fused = shared_rows && !packed;
    in_place = fused && p.transposed && !p.bf16() && tiles_wait(ceil_div(R, p.num_groups())) &&
               panels.cols == panels.padded_cols;
    // Where panels are columns of the weight, neighbouring ones: a row of one is only a cache line or two.
    const int64_t many_enough = p.num_groups() * panels.count() / (int64_t{4} * num_threads);
    // Only so many as fit with all their steps, if one does: then no sum leaves the registers.
    const int64_t whole = kBlockSteps / std::max<int64_t>(panels.steps, 1);
    const int64_t most = whole > 0 ? std::min(whole, kMostPanelsTogether) : kMostPanelsTogether;
    run = p.transposed && !in_place ? std::clamp<int64_t>(many_enough, 1, most) : 1;
    const int64_t b_words = fused ? num_threads * kPanelBlockWords : p.num_groups() * panels.words();
    b_bytes = packed ? 0 : align_up(b_words * 4);
    a_bytes = packed_rows * a_stride * 4;
    blocks_bytes = align_up(max_blocks * static_cast<int64_t>(sizeof(RowBlock)));
    partial_words = (fused ? R * run : kBlockRows) * vec::kPanelCols;
    partial_bytes = num_threads * partial_words * 4;
  }
  int64_t bytes() const { return b_bytes + a_bytes + blocks_bytes + partial_bytes; }

  Panels panels;
  int64_t a_stride, max_blocks, block_threads;
  bool shared_rows;  ///< rows are packed before, else by the task that multiplies them
  bool fused;        ///< the weight is packed by the task that multiplies it
  bool in_place;     ///< fused, but few rows of a group don't repay packing: the weight is a panel as it lies
  int64_t run;       ///< panels that a task packs together, when fused
  int64_t partial_words;  ///< of a thread
  int64_t b_bytes, a_bytes, blocks_bytes, partial_bytes;
};

class Multiplication {
 public:
  Multiplication(ExecContext& ctx, const RowsProduct& p, const vec::MatmulIsa& isa, std::span<std::byte> ws)
      : pool_(*ctx.pool),
        p_(p),
        isa_(isa),
        kernels_(p.bf16() ? isa.bf16 : isa.f32),
        packing_(packing_of(kernels_, p.a.dtype)),
        groups_(p.op, p.offsets, p.c.dim(0)),
        plan_(p, p.c.dim(0), ctx.pool->num_threads()),
        rows_(p.a, p.row_ids),
        stream_(!p.add && streams(p.c)) {
    std::byte* at = ws.data();
    b_ = reinterpret_cast<uint32_t*>(at);
    a_ = reinterpret_cast<uint32_t*>(at += plan_.b_bytes);
    blocks_ = reinterpret_cast<RowBlock*>(at += plan_.a_bytes);
    partials_ = reinterpret_cast<float*>(at += plan_.blocks_bytes);
  }

  void run() {
    const Panels& panels = plan_.panels;
    const int64_t rows = groups_.end(groups_.count() - 1) - groups_.begin(0);
    if (rows == 0 || panels.cols == 0) return;
    if (plan_.shared_rows)
      parallel_for(pool_, rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(p_.inner, 1)),
                   [&](int64_t begin, int64_t end) {
                     pack_rows(groups_.begin(0) + begin, end - begin, a_ + begin * plan_.a_stride);
                   });
    if (plan_.fused) return pack_and_multiply();
    if (p_.w.layout == Layout::kPanels)
      b_ = static_cast<uint32_t*>(p_.w.data);
    else
      pack_weights(pool_, isa_, p_.w, p_.transposed, groups_, panels, b_);
    const int64_t num_blocks = cut_blocks(groups_, plan_.block_threads, blocks_);
    const int64_t run_panels = panels_per_task(panels, num_blocks, rows / num_blocks, pool_.num_threads(),
                                               plan_.shared_rows ? 1 : kMinPanelsPerPacking);
    const int64_t runs = (panels.count() + run_panels - 1) / run_panels;
    const auto multiply_run = [&](const RowBlock& block, int64_t run, int thread, RowsAhead* ahead) {
      const int64_t first = run * run_panels;
      multiply(block, first, std::min(first + run_panels, panels.count()), thread, ahead);
    };
    // Many rows: neighbouring tasks share a block's rows.
    if (!plan_.shared_rows) {
      // The next block's rows, where they find room in L2.
      const bool ahead = runs == 1 && p_.inner * rows_.element <= kBlockSteps * 4;
      return pool_.run_ranges(runs * num_blocks, [&](int64_t task, int thread) {
        const RowBlock& block = blocks_[task / runs];
        if (!ahead || task + 1 == num_blocks) return multiply_run(block, task % runs, thread, nullptr);
        const RowBlock& next = blocks_[task + 1];
        RowsAhead rows(rows_, next.begin, next.rows, 0, p_.inner, num_tiles(block.rows) * panels.count());
        multiply_run(block, 0, thread, &rows);
      });
    }
    // Few: each thread reads the weights, which come from memory, strictly forward, and a group's blocks
    // share a panel.
    pool_.run_ranges(runs * num_blocks, [&](int64_t task, int thread) {
      const RowBlock& any = blocks_[task / runs];
      const int64_t in_group = task - any.first_of_group * runs;
      const RowBlock& block = blocks_[any.first_of_group + in_group % any.blocks_of_group];
      multiply_run(block, in_group / any.blocks_of_group, thread, nullptr);
    });
  }

 private:
  void pack_rows(int64_t first, int64_t count, uint32_t* to) const {
    const int64_t bytes = p_.inner * rows_.element, ahead = prefetch_rows(bytes);
    for (int64_t r = 0; r < count; ++r) {
      if (r + ahead < count) prefetch_row(rows_.at(first + r + ahead, 0), bytes);
      packing_.row(to + r * plan_.a_stride, rows_.at(first + r, 0), p_.inner);
    }
  }

  LeftRows left_rows(const RowBlock& block, int thread) const {
    if (plan_.shared_rows) return {a_ + (block.begin - groups_.begin(0)) * plan_.a_stride, plan_.a_stride, 1};
    uint32_t* packed = a_ + thread * kBlockRows * plan_.a_stride;
    pack_rows(block.begin, block.rows, packed);
    return {packed, plan_.a_stride, 1};
  }

  BlockOutput output(const RowBlock& block, int64_t col) const {
    const Tensor& add = p_.add;
    return {
        .c = p_.c.ptr<float>() + block.begin * p_.c.stride(0) + col,
        .c_stride = p_.c.stride(0),
        .bias = p_.bias ? p_.bias.ptr<float>() + col : nullptr,
        .add = add ? add.ptr<float>() + block.begin * add.stride(0) + col : nullptr,
        .add_stride = add ? add.stride(0) : 0,
        .stream = stream_,
    };
  }
  float* partial(int thread) const { return partials_ + thread * plan_.partial_words; }

  void multiply(const RowBlock& block, int64_t panel_begin, int64_t panel_end, int thread,
                RowsAhead* ahead) const {
    const LeftRows a = left_rows(block, thread);
    for (int64_t panel = panel_begin; panel < panel_end; ++panel)
      multiply_block(kernels_, a, block.rows, b_ + block.group * plan_.panels.words(), plan_.panels, panel,
                     output(block, panel * vec::kPanelCols), partial(thread), ahead);
    end_stream();
  }

  /// Behind a task's last row: streamed stores are in no order with what tells other threads that it is done.
  void end_stream() const {
    if (stream_) __builtin_ia32_sfence();
  }

  /// Rows times neighbouring columns, of whole panels where they are packed, by one task.
  struct Piece {
    RowBlock block;
    int64_t col, cols;
  };

  /// Whether so many rows are multiplied by the weight's rows, not packed (MatmulNT).
  bool few(int64_t rows) const {
    return !p_.transposed && rows <= vec::kFewRows && p_.inner % kernels_.elements_per_word == 0;
  }

  /// The i-th piece of a thread's share: whole runs of panels of one group, then its part of those that don't
  /// come out even on the threads.
  Piece piece_of(int thread, int64_t i, int64_t whole_runs) const {
    const int64_t threads = pool_.num_threads();
    const bool whole = i < whole_runs;
    const int64_t run = whole ? thread * whole_runs + i : (threads - 1) * whole_runs + i;
    const int64_t runs = panel_runs(), group = run / runs, begin = groups_.begin(group);
    const int64_t run_cols = plan_.run * vec::kPanelCols, col = run % runs * run_cols;
    Piece piece{{group, begin, groups_.end(group) - begin}, col, std::min(run_cols, plan_.panels.cols - col)};
    const auto take_part = [&](int64_t& first, int64_t& count, int64_t unit) {
      const int64_t most = align_up(ceil_div(count, threads), unit), skipped = std::min(count, thread * most);
      first += skipped;
      count = std::min(most, count - skipped);
    };
    if (!whole && few(piece.block.rows))
      take_part(piece.col, piece.cols, vec::kPanelUnit);
    else if (!whole)
      take_part(piece.block.begin, piece.block.rows, vec::kTileRows);
    return piece;
  }
  int64_t panel_runs() const { return (plan_.panels.count() + plan_.run - 1) / plan_.run; }

  void pack_and_multiply() const {
    const int64_t threads = pool_.num_threads(), all = groups_.count() * panel_runs();
    const int64_t whole_runs = all / threads, share = whole_runs + all % threads;
    const auto piece = [&](int64_t task) {
      return piece_of(static_cast<int>(task / share), task % share, whole_runs);
    };
    pool_.run_ranges(threads * share, [&](int64_t task, int thread) {
      const Piece now = piece(task);
      if (now.block.rows == 0 || now.cols == 0) return;
      if (few(now.block.rows)) return multiply_few(now, thread);
      const std::optional<Piece> next =
          task + 1 < threads * share ? std::optional(piece(task + 1)) : std::nullopt;
      pack_and_multiply(now, next ? &*next : nullptr, thread);
    });
  }

  void multiply_few(const Piece& piece, int thread) const {
    StepBlock all{};
    all.count = plan_.panels.steps;
    all.last = true;
    multiply_few(piece, piece.block.rows, all, nullptr, nullptr, left_rows(piece.block, thread));
  }

  /// The piece's first rows by some steps of its columns, which become a panel in `packed` unless it is null.
  void multiply_few(const Piece& piece, int64_t rows, const StepBlock& steps, uint32_t* packed,
                    float* partial, const LeftRows& a) const {
    const Tensor w = weight(piece);
    const int64_t stride = w.stride(0) * size_of(w.dtype);
    const BlockOutput out = output(piece.block, piece.col);
    kernels_.few_rows(static_cast<int>(rows),
                      {.a = a.base + steps.begin,
                       .a_stride = a.row_stride,
                       .w = static_cast<const std::byte*>(w.data) + piece.col * stride + steps.begin * 4,
                       .w_stride = stride,
                       .steps = steps.count,
                       .cols = piece.cols,
                       .packed = packed,
                       .init = steps.begin > 0 ? partial : nullptr,
                       .c = steps.last ? out.c : partial,
                       .c_stride = steps.last ? out.c_stride : vec::kPanelCols,
                       .bias = steps.last ? out.bias : nullptr,
                       .add = steps.last ? out.add : nullptr,
                       .add_stride = out.add_stride});
  }

  /// How many steps are packed and multiplied at a time: of neighbouring panels, which rows of tiles wait
  /// for, together 128 KB.
  int64_t packed_steps(int64_t rows) const {
    const int64_t most = std::min(block_steps(rows), kBlockSteps / plan_.run);
    const int64_t parts = std::max<int64_t>(1, (plan_.panels.steps + most - 1) / most);
    return (plan_.panels.steps + parts - 1) / parts;
  }

  void pack_and_multiply(const Piece& piece, const Piece* next, int thread) const {
    const Panels& panels = plan_.panels;
    const int64_t rows = piece.block.rows, most = packed_steps(rows);
    const int64_t first = piece.col / vec::kPanelCols,
                  last = ceil_div(piece.col + piece.cols, vec::kPanelCols);
    const bool in_place = plan_.in_place && tiles_wait(rows);
    const Tensor w = weight(piece);
    const LeftRows a = left_rows(piece.block, thread);
    uint32_t* b = b_ + thread * kPanelBlockWords;
    // Else packing does, along the rows: where tiles have too few steps for the four lines of each.
    const bool fetches = p_.transposed || num_tiles(rows) > 3;
    // The first rows of many are multiplied while the weight is packed: shuffles, dots and memory overlap.
    const bool first_few = fetches && few(vec::kFewRows) && piece.cols == vec::kPanelCols;
    const int64_t first_rows = first_few ? vec::kFewRows : 0;
    const RowBlock others{piece.block.group, piece.block.begin + first_rows, rows - first_rows};
    const LeftRows others_a{a.base + first_rows * a.row_stride, a.row_stride, a.step_stride};
    StepBlock steps{};
    do {  // at least once, as in multiply_block
      steps.count = std::min(most, panels.steps - steps.begin);
      steps.last = steps.begin + steps.count == panels.steps;
      if (first_rows > 0)
        multiply_few(piece, first_rows, steps, b, partial(thread), a);
      else if (!in_place)
        pack_panels(isa_, w, p_.transposed, panels, first, last, steps.begin, steps.count, fetches, b);
      const int64_t tiles = num_tiles(others.rows) * (last - first);
      std::optional<RowsAhead> ahead;
      if (fetches && !steps.last)
        ahead = weight_ahead(piece, steps.begin + steps.count, most, tiles);
      else if (fetches && next && next->block.rows > 0)
        ahead = weight_ahead(*next, 0, packed_steps(next->block.rows), tiles);
      for (int64_t panel = first; panel < last; ++panel) {
        steps.stride = in_place ? w.stride(0) : panels.width_of(panel);
        steps.b = in_place ? static_cast<const uint32_t*>(w.data) + steps.begin * steps.stride +
                                 panel * vec::kPanelCols
                           : b + (panel - first) * vec::kPanelCols * steps.count;
        multiply_steps(kernels_, others_a, others.rows, steps, panels, panel,
                       output(others, panel * vec::kPanelCols),
                       partial(thread) + ((panel - first) * rows + first_rows) * vec::kPanelCols,
                       ahead ? &*ahead : nullptr);
      }
      steps.begin += steps.count;
    } while (!steps.last);
    end_stream();
  }

  Tensor weight(const Piece& piece) const { return p_.w.shape.ndim() == 3 ? p_.w[piece.block.group] : p_.w; }

  /// Up to `most` steps from `begin` of a piece's panels, in the course of `tiles` tiles.
  RowsAhead weight_ahead(const Piece& piece, int64_t begin, int64_t most, int64_t tiles) const {
    const Tensor w = weight(piece);
    const int64_t col = piece.col, cols = piece.cols;
    const int64_t element = size_of(w.dtype), inner = begin * 4 / element;
    const int64_t inners = std::min(p_.inner - inner, most * 4 / element);
    const int64_t row = p_.transposed ? inner : col, along = p_.transposed ? col : inner;
    return {static_cast<const std::byte*>(w.data) + (row * w.stride(0) + along) * element,
            w.stride(0) * element,
            nullptr,
            p_.transposed ? inners : cols,
            (p_.transposed ? cols : inners) * element,
            tiles};
  }

  ThreadPool& pool_;
  const RowsProduct& p_;
  const vec::MatmulIsa& isa_;
  const vec::MatmulKernels& kernels_;
  const vec::MatmulPacking& packing_;
  const Groups groups_;
  const Plan plan_;
  const GatheredRows rows_;
  const bool stream_;  ///< c is written past the caches
  uint32_t* b_;
  uint32_t* a_;
  RowBlock* blocks_;
  float* partials_;
};

template <const vec::MatmulIsa& isa, class Args>
void run_rows(ExecContext& ctx, const Args& args, std::span<std::byte> ws) {
  const RowsProduct p(args);
  Multiplication(ctx, p, isa, ws).run();
}

template <class Args>
int64_t workspace(const ExecContext& ctx, const Args& args) {
  const RowsProduct p(args);
  const int num_threads = ctx.pool->num_threads();
  const int64_t R = p.c.dim(0);
  // What is planned for many rows serves any fewer, and those that are shared may need more.
  return std::max(Plan(p, R, num_threads).bytes(),
                  Plan(p, std::min(R, most_shared_rows(p, num_threads)), num_threads).bytes());
}

Refusal refuse_packed(const MatmulNT&) {
  return "";
}
Refusal refuse_packed(const MatmulNN& a) {
  return a.w.layout == Layout::kPanels ? "w: expected strided, got packed" : "";
}

template <class Args>
Refusal supports_ref(const Args& a) {
  return refuse_packed(a);
}
template <class Args>
Refusal supports_avx2(const Args& a) {
  const Refusal no = needs_avx2(a);
  return no.empty() ? refuse_packed(a) : no;
}
template <class Args>
Refusal supports_avx512(const Args& a) {
  const Refusal no = needs_avx512(a);
  if (no.empty() && a.w.dtype == DType::kBF16 && !cpu_info().avx512_bf16)
    return "this CPU has no AVX-512 BF16 (vdpbf16ps)";
  return no.empty() ? refuse_packed(a) : no;
}

template <class Args>
std::vector<Impl<Args>> impls(decltype(Impl<Args>::run) ref) {
  return {
      {"cpu.avx512", DeviceKind::kCpu, supports_avx512<Args>, run_rows<vec::avx512::matmul, Args>,
       workspace<Args>},
      {"cpu.avx2", DeviceKind::kCpu, supports_avx2<Args>, run_rows<vec::avx2::matmul, Args>, workspace<Args>},
      {"cpu.ref", DeviceKind::kCpu, supports_ref<Args>, ref, nullptr}};
}

}  // namespace

std::vector<Impl<MatmulNT>> matmul_nt_impls() {
  return impls<MatmulNT>(matmul_nt_ref);
}

std::vector<Impl<MatmulNN>> matmul_nn_impls() {
  return impls<MatmulNN>(matmul_nn_ref);
}

}  // namespace moge::ops::cpu
