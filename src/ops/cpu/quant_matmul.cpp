#include "ops/cpu/quant_matmul.h"

#include <array>
#include <cmath>

#include "ops/cpu/element.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/matmul_block.h"
#include "ops/cpu/quant_panels.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/scratch.h"
#include "ops/cpu/vec/quant_matmul.h"

namespace moge::ops::cpu {

namespace {

// Products of eight-bit floats and of bf16 are exact in double, so one rounding to fp32 ends the sum. Eight
// sums side by side, for the compiler's vectors.
template <class T, class Value>
float dot(const T* a, const T* w, int64_t K, const Value& value) {
  constexpr int64_t kSums = 8;
  std::array<double, kSums> sums{};
  int64_t k = 0;
  for (; k + kSums <= K; k += kSums)
    for (int64_t i = 0; i < kSums; ++i) sums[i] += double{value(a[k + i])} * value(w[k + i]);
  double sum = 0;
  for (; k < K; ++k) sum += double{value(a[k])} * value(w[k]);
  for (const double s : sums) sum += s;
  return static_cast<float>(sum);
}

constexpr std::array<float, 256> kFP8Values = [] {
  std::array<float, 256> values{};
  for (int bits = 0; bits < 256; ++bits) values[bits] = to_f32(FP8E4M3{static_cast<uint8_t>(bits)});
  return values;
}();

float dot_row(const int8_t* a, const int8_t* w, int64_t K) {
  int32_t sum = 0;
  for (int64_t k = 0; k < K; ++k) sum += int32_t{a[k]} * w[k];
  return static_cast<float>(sum);
}
float dot_row(const FP8E4M3* a, const FP8E4M3* w, int64_t K) {
  return dot(a, w, K, [](FP8E4M3 x) { return kFP8Values[x.bits]; });
}
float dot_row(const BF16* a, const BF16* w, int64_t K) {
  return dot(a, w, K, [](BF16 x) { return to_f32(x); });
}

/// v[r, n] of the contract; row r is that of `token`.
template <class T>
float value(const QuantMatmul& a, int64_t g, int64_t token, int64_t n) {
  const int64_t N = a.w.dim(-2), K = a.w.dim(-1);
  float v = dot_row(a.a.ptr<T>() + token * a.a.stride(0), a.w.ptr<T>() + (g * N + n) * K, K);
  if (a.w_scale) {
    v *= a.w_scale.ptr<float>()[a.offsets ? g * a.w_scale.stride(0) + n : n];
    v *= a.a_scale.ptr<float>()[token * a.a_scale.stride(0)];
  }
  return a.bias ? v + a.bias.ptr<float>()[n] : v;
}

float silu(float x) {
  return static_cast<float>(x / (1 + std::exp(-double{x})));
}

/// Throws ShapeError unless row_ids, where there are any, name rows of a.
void check_row_ids(const QuantMatmul& a) {
  if (!a.row_ids) return;
  const auto* ids = a.row_ids.ptr<int32_t>();
  for (int64_t r = 0; r < a.c.dim(0); ++r)
    check<ShapeError>(ids[r] >= 0 && ids[r] < a.a.dim(0), "quant_matmul: row_ids[", r, "]: expected 0..",
                      a.a.dim(0) - 1, ", got ", ids[r]);
}

template <class T>
void run_as(ExecContext& ctx, const QuantMatmul& a) {
  const Groups groups("quant_matmul", a.offsets, a.c.dim(0));
  const int32_t* ids = a.row_ids ? a.row_ids.ptr<int32_t>() : nullptr;
  for (int64_t g = 0; g < groups.count(); ++g)
    parallel_for(*ctx.pool, groups.end(g) - groups.begin(g), 1, [&](int64_t first, int64_t last) {
      for (int64_t r = groups.begin(g) + first; r < groups.begin(g) + last; ++r) {
        const int64_t token = ids ? ids[r] : r;
        const float weight = a.row_weight ? a.row_weight.ptr<float>()[r] : 1;
        for (int64_t i = 0; i < a.c.dim(1); ++i) {
          const float v = a.silu_mul ? silu(value<T>(a, g, token, gate_up_row(i, false))) *
                                           value<T>(a, g, token, gate_up_row(i, true))
                                     : value<T>(a, g, token, i);
          store_element(a.c, r * a.c.stride(0) + i, v * weight);
        }
      }
    });
}

void run_ref(ExecContext& ctx, const QuantMatmul& a, std::span<std::byte> ws) {
  if (a.w.layout == Layout::kPanels) {
    const OwnedTensor rows = unpack_quant_weight(a.w);
    QuantMatmul plain = a;
    plain.w = rows;
    return run_ref(ctx, plain, ws);
  }
  check_row_ids(a);
  if (a.a.dtype == DType::kI8)
    run_as<int8_t>(ctx, a);
  else if (a.a.dtype == DType::kFP8E4M3)
    run_as<FP8E4M3>(ctx, a);
  else
    run_as<BF16>(ctx, a);
}

/// c in pieces: a block of rows times some columns. Pieces with the same weights follow each other, and those
/// of a block lie one behind the other, so that a thread reads the weights forward.
class Pieces {
 public:
  Pieces(const QuantMatmul& a, const vec::QuantMatmulKernels& kernels, RowBlock* blocks)
      : a_(a),
        kernels_(kernels),
        blocks_(blocks),
        K_(a.w.dim(-1)),
        N_(a.w.dim(-2)),
        element_(size_of(a.a.dtype)) {}

  void run(ThreadPool& pool) const {
    const int64_t num_blocks = cut_blocks(Groups("quant_matmul", a_.offsets, a_.c.dim(0)), 1, blocks_);
    if (num_blocks == 0 || N_ == 0) return;
    // Results do not depend on where columns are cut, as long as it is at multiples of 16.
    const int64_t most = N_ * num_blocks / (int64_t{8} * pool.num_threads());
    const int64_t cols = std::clamp<int64_t>(most / kColUnit * kColUnit, kColUnit, vec::kQuantCols);
    const int64_t cuts = ceil_div(N_, cols);
    pool.run_ranges(num_blocks * cuts, [&](int64_t piece, int) {
      const RowBlock& any = blocks_[piece / cuts];
      const int64_t in_group = piece - any.first_of_group * cuts;
      const int64_t col = in_group / any.blocks_of_group * cols;
      multiply(blocks_[any.first_of_group + in_group % any.blocks_of_group], col, std::min(cols, N_ - col));
    });
  }

 private:
  static constexpr int64_t kColUnit = 2 * kGateUpBlock;

  void multiply(const RowBlock& block, int64_t col, int64_t cols) const {
    const Rows<float> a_scale(a_.a_scale), row_weight(a_.row_weight);
    const int64_t c_element = size_of(a_.c.dtype), c_col = a_.silu_mul ? col / 2 : col;
    vec::QuantTile t{.rows = 0,
                     .cols = cols,
                     .row_bytes = K_ * element_,
                     .a = {},
                     .w = static_cast<const char*>(a_.w.data) + (block.group * N_ + col) * K_ * element_,
                     .stream = false,
                     .w_ahead = 0,
                     .next_rows = 0,
                     .next_a = {},
                     .out = {}};
    t.out.bias = a_.bias ? a_.bias.ptr<float>() + col : nullptr;
    t.out.c_bf16 = a_.c.dtype == DType::kBF16;
    t.out.silu_mul = a_.silu_mul;
    if (a_.w_scale)
      t.out.w_scale = a_.w_scale.ptr<float>() + (a_.offsets ? block.group * a_.w_scale.stride(0) : 0) + col;
    // Tiles of near equal height, each of which fetches the next one's rows. The first waits for the weights
    // unless it has many rows: it fetches them two pages ahead, because the hardware prefetcher stops at a
    // page's end. The last of several fetches those of the next columns.
    const int64_t tiles = ceil_div(block.rows, kernels_.tile_rows), height = ceil_div(block.rows, tiles);
    for (int64_t begin = 0; begin < block.rows; begin += height) {
      const int64_t left = block.rows - begin - height;
      t.rows = static_cast<int>(std::min(height, block.rows - begin));
      t.next_rows = static_cast<int>(std::clamp<int64_t>(left, 0, height));
      t.stream = begin == 0 && height <= kernels_.stream_rows;
      t.w_ahead = t.stream ? 8192 : (left > 0 || tiles == 1 ? kernels_.tile_cols : cols) * t.row_bytes;
      for (int i = 0; i < t.next_rows; ++i) t.next_a[i] = left_row(block.begin + begin + height + i);
      for (int i = 0; i < t.rows; ++i) {
        const int64_t r = block.begin + begin + i;
        t.a[i] = left_row(r);
        t.out.a_scale[i] = a_scale ? *a_scale[token(r)] : 1;
        t.out.row_weight[i] = row_weight ? *row_weight[r] : 1;
        t.out.c[i] = static_cast<char*>(a_.c.data) + (r * a_.c.stride(0) + c_col) * c_element;
      }
      (a_.a.dtype == DType::kI8 ? kernels_.i8 : kernels_.bf16)(t);
    }
  }

  int64_t token(int64_t r) const { return a_.row_ids ? a_.row_ids.ptr<int32_t>()[r] : r; }
  const char* left_row(int64_t r) const {
    return static_cast<const char*>(a_.a.data) + token(r) * a_.a.stride(0) * element_;
  }

  const QuantMatmul& a_;
  const vec::QuantMatmulKernels& kernels_;
  RowBlock* blocks_;
  int64_t K_, N_, element_;
};

RowBlock* take_blocks(const QuantMatmul& a, Scratch& scratch) {
  return scratch.take<RowBlock>(max_row_blocks(a.offsets ? a.offsets.dim(0) - 1 : 1, 1, a.c.dim(0)));
}
int64_t workspace(const ExecContext& ctx, const QuantMatmul& a) {
  if (a.w.layout == Layout::kPanels) return quant_panels_workspace(ctx, a);
  Scratch scratch;
  take_blocks(a, scratch);
  return scratch.used_bytes();
}

template <const vec::QuantMatmulKernels& kernels>
void run(ExecContext& ctx, const QuantMatmul& a, std::span<std::byte> ws) {
  check_row_ids(a);
  if (a.w.layout == Layout::kPanels) return multiply_quant_panels(ctx, a, ws);
  Scratch scratch(ws);
  Pieces(a, kernels, take_blocks(a, scratch)).run(*ctx.pool);
}

Refusal supports_avx2(const QuantMatmul& a) {
  if (a.a.dtype == DType::kFP8E4M3) return "a fp8_e4m3: expected i8 or bf16";
  if (a.w.layout == Layout::kPanels) return "w is packed for AVX-512 VNNI";
  return needs_avx2(a);
}
Refusal supports_avx512(const QuantMatmul& a) {
  if (a.a.dtype == DType::kFP8E4M3) return supports_avx2(a);
  if (a.a.dtype == DType::kI8 && !cpu_info().avx512_vnni) return "this CPU has no AVX-512 VNNI";
  if (a.a.dtype == DType::kBF16 && !cpu_info().avx512_bf16) return "this CPU has no AVX-512 BF16";
  return "";
}

}  // namespace

std::vector<Impl<QuantMatmul>> quant_matmul_impls() {
  return {{"cpu.avx512", DeviceKind::kCpu, supports_avx512, run<vec::avx512::quant_matmul>, workspace},
          {"cpu.avx2", DeviceKind::kCpu, supports_avx2, run<vec::avx2::quant_matmul>, workspace},
          {"cpu.ref", DeviceKind::kCpu, supports_all<QuantMatmul>, run_ref}};
}

}  // namespace moge::ops::cpu
