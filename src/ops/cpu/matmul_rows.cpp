// matmul_nt and matmul_nn: rows of activations times a weight, per group. In phases: pack the weight (unless
// it is already packed), then for each chunk of rows pack the rows (bf16 only: fp32 rows are read in place)
// and multiply. A chunk's packed rows stay in L3, so activations are read from memory once.
#include "ops/cpu/isa.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/matmul_block.h"
#include "ops/cpu/matmul_groups.h"
#include "ops/cpu/matmul_pack.h"

namespace moge::ops::cpu {

namespace {

constexpr int64_t kChunkBytes = int64_t{4} << 20;

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

/// Up to kBlockRows rows of one group.
struct RowBlock {
  int64_t group;
  int64_t begin;
  int64_t rows;
};

struct Plan {
  Plan(const RowsProduct& p, int num_threads) : panels(p.panels()) {
    const int64_t R = p.c.dim(0);
    a_stride = align_up(panels.steps, 16) + 16;  // not a multiple of 4 KiB: six rows would share L1 sets
    chunk_rows = p.bf16() ? std::clamp(kChunkBytes / (a_stride * 4) / kBlockRows * kBlockRows, kBlockRows,
                                       align_up(std::max<int64_t>(R, 1), kBlockRows))
                          : std::max<int64_t>(R, 1);
    chunk_rows = std::min(chunk_rows, std::max<int64_t>(R, 1));
    max_blocks = chunk_rows / kBlockRows + 1 + std::min(p.num_groups(), chunk_rows);
    b_bytes = p.w.layout == Layout::kPanels ? 0 : align_up(p.num_groups() * panels.words() * 4);
    a_bytes = p.bf16() ? align_up(chunk_rows * a_stride * 4) : 0;
    blocks_bytes = align_up(max_blocks * static_cast<int64_t>(sizeof(RowBlock)));
    partial_bytes = num_threads * kBlockRows * vec::kPanelCols * 4;
  }
  int64_t bytes() const { return b_bytes + a_bytes + blocks_bytes + partial_bytes; }

  Panels panels;
  int64_t a_stride, chunk_rows, max_blocks;
  int64_t b_bytes, a_bytes, blocks_bytes, partial_bytes;
};

/// The blocks of rows [begin, end), of near equal height within a group.
int64_t cut_blocks(const Groups& groups, int64_t begin, int64_t end, RowBlock* blocks) {
  int64_t count = 0;
  for (int64_t g = 0; g < groups.count(); ++g) {
    const int64_t first = std::max(groups.begin(g), begin);
    const int64_t rows = std::min(groups.end(g), end) - first;
    if (rows <= 0) continue;
    const int64_t parts = (rows + kBlockRows - 1) / kBlockRows;
    const int64_t height = align_up((rows + parts - 1) / parts, vec::kTileRows);
    for (int64_t r = 0; r < rows; r += height) blocks[count++] = {g, first + r, std::min(height, rows - r)};
  }
  return count;
}

void run(ExecContext& ctx, const RowsProduct& p, const vec::MatmulIsa& isa, std::span<std::byte> ws) {
  const vec::MatmulKernels& kernels = p.bf16() ? isa.bf16 : isa.f32;
  const Groups groups(p.op, p.offsets, p.c.dim(0));
  const Plan plan(p, ctx.pool->num_threads());
  const Panels& panels = plan.panels;
  std::byte* at = ws.data();
  auto* b_space = reinterpret_cast<uint32_t*>(at);
  auto* a_space = reinterpret_cast<uint32_t*>(at += plan.b_bytes);
  auto* blocks = reinterpret_cast<RowBlock*>(at += plan.a_bytes);
  auto* partials = reinterpret_cast<float*>(at += plan.blocks_bytes);

  const uint32_t* b = b_space;
  if (p.w.layout == Layout::kPanels)
    b = static_cast<const uint32_t*>(p.w.data);
  else
    pack_weights(*ctx.pool, isa, p.w, p.transposed, groups, panels, b_space);

  const GatheredRows<float> rows(p.a, p.row_ids);
  const auto* bias = p.bias ? p.bias.ptr<float>() : nullptr;
  const int64_t rows_end = groups.end(groups.count() - 1);
  for (int64_t chunk = groups.begin(0); chunk < rows_end; chunk += plan.chunk_rows) {
    const int64_t chunk_end = std::min(chunk + plan.chunk_rows, rows_end);
    LeftRows a{reinterpret_cast<const uint32_t*>(rows.base), rows.stride, 1, rows.ids};
    if (p.bf16()) {
      parallel_for(*ctx.pool, chunk_end - chunk, pack_grain(p.inner), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
          kernels.pack_row(a_space + r * plan.a_stride, rows[chunk + r], p.inner);
      });
      a = {a_space - chunk * plan.a_stride, plan.a_stride, 1, nullptr};
    }
    const int64_t num_blocks = cut_blocks(groups, chunk, chunk_end, blocks);
    if (num_blocks == 0) continue;
    const int64_t run_panels =
        panels_per_task(panels, num_blocks, (chunk_end - chunk) / num_blocks, ctx.pool->num_threads());
    const int64_t runs = (panels.count() + run_panels - 1) / run_panels;
    ctx.pool->run(runs * num_blocks, [&](int64_t task, int thread) {
      const RowBlock& block = blocks[task % num_blocks];
      const int64_t first = task / num_blocks * run_panels;
      for (int64_t panel = first; panel < std::min(first + run_panels, panels.count()); ++panel) {
        const int64_t col = panel * vec::kPanelCols;
        const BlockOutput out{
            p.c.ptr<float>() + block.begin * p.c.stride(0) + col,
            p.c.stride(0),
            bias ? bias + col : nullptr,
            p.add ? p.add.ptr<float>() + block.begin * p.add.stride(0) + col : nullptr,
            p.add ? p.add.stride(0) : 0,
            false,
        };
        multiply_block(kernels, a.from(block.begin), block.rows, b + block.group * panels.words(), panels,
                       panel, out, partials + thread * kBlockRows * vec::kPanelCols);
      }
    });
  }
}

template <const vec::MatmulIsa& isa, class Args>
void run_rows(ExecContext& ctx, const Args& args, std::span<std::byte> ws) {
  run(ctx, RowsProduct(args), isa, ws);
}

template <class Args>
int64_t workspace(const ExecContext& ctx, const Args& args) {
  return Plan(RowsProduct(args), ctx.pool->num_threads()).bytes();
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
