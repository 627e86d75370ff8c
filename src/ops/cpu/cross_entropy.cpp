// Blocks of tokens against chunks of the vocabulary, the products by ops/matmul.h. The loss alone needs each
// logit once, so chunks are as large as a cache. A gradient needs the logits again when their sum is known:
// then a block keeps them over the whole vocabulary, and is cut in rows instead. Few rows would be dear: each
// block reads the weight twice and its fp32 gradient once, and writes the latter.
#include "ops/cpu/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "ops/cpu/isa.h"
#include "ops/cpu/scratch.h"
#include "ops/cpu/vec/softmax.h"
#include "ops/matmul.h"

namespace moge::ops::cpu {

namespace {

constexpr int64_t kMaxRows = 1024;         ///< of a block: more make the products no faster
constexpr int64_t kMinRows = 256;          ///< fewer make them wait for the weight and its gradient
constexpr int64_t kKeptLogits = 16 << 20;  ///< of a block's whole rows: 64 MB, unless those are kMinRows
constexpr int64_t kChunkLogits = 2 << 20;  ///< of a chunk: 8 MB stay in the last-level cache

struct BlockSize {
  explicit BlockSize(const CrossEntropy& a) {
    const int64_t T = std::max<int64_t>(a.x.dim(0), 1), V = std::max<int64_t>(a.w.dim(0), 1);
    const bool packed = a.w.layout != Layout::kStrided;  // such a weight cannot be cut
    const bool whole = a.dx || packed;
    rows = std::min(T, whole ? std::clamp(kKeptLogits / V, packed ? 1 : kMinRows, kMaxRows) : kMaxRows);
    columns = whole ? V : std::min(V, kChunkLogits / rows);
  }
  int64_t rows, columns;
};

/// Softmax of one row while its chunks pass by.
struct RowState {
  float max, target;  // the target's logit
  double sum;         // of exp(logit - max)
  void add(const vec::SoftmaxStats& chunk) {
    const float top = std::max(max, chunk.max);
    sum = sum * std::exp(double{max} - top) + chunk.sum * std::exp(double{chunk.max} - top);
    max = top;
  }
};

class Loss {
 public:
  Loss(const vec::SoftmaxKernels& kernels, const CrossEntropy& a, Scratch& scratch)
      : kernels_(kernels),
        a_(a),
        size_(a),
        V_(a.w.dim(0)),
        logits_(scratch.take<float>(size_.rows * size_.columns)),
        rows_(scratch.take<RowState>(size_.rows)) {}

  /// In planning mode only plans what the products need.
  void run(ExecContext& ctx) {
    for (int64_t t = 0; t < a_.x.dim(0); t += size_.rows)
      block(ctx, t, std::min(a_.x.dim(0), t + size_.rows));
  }

 private:
  void block(ExecContext& ctx, int64_t begin, int64_t end) {
    begin_ = begin;
    x_ = a_.x.slice(0, begin, end);
    if (!ctx.planning) std::fill_n(rows_, end - begin, RowState{-INFINITY, 0, 0});
    for (int64_t v = 0; v < V_; v += size_.columns) softmax(ctx, v, logits(ctx, v));
    if (!ctx.planning) losses(end - begin);
    if (a_.dx) gradients(ctx);
  }

  Tensor weights(int64_t v) const {
    return size_.columns < V_ ? a_.w.slice(0, v, std::min(V_, v + size_.columns)) : a_.w;
  }
  /// [the block's rows, columns v..]
  Tensor logits(ExecContext& ctx, int64_t v) const {
    const Tensor c{logits_, DType::kF32, {x_.dim(0), std::min(size_.columns, V_ - v)}};
    matmul_nt(ctx, {.c = c, .a = x_, .w = weights(v)});
    return c;
  }

  /// The target of a row of this block, counted from v; outside the chunk when it is elsewhere.
  int64_t target(int64_t row, int64_t v) const { return a_.targets.ptr<int32_t>()[begin_ + row] - v; }

  void softmax(ExecContext& ctx, int64_t v, const Tensor& logits) {
    if (ctx.planning) return;
    const int64_t n = logits.dim(1);
    ctx.pool->run(logits.dim(0), [&](int64_t row, int) {
      const float* x = logits.ptr<float>() + row * n;
      rows_[row].add(kernels_.stats(x, n));
      const int64_t i = target(row, v);
      if (i >= 0 && i < n) rows_[row].target = x[i];
    });
  }

  void losses(int64_t count) const {
    float* loss = a_.loss.ptr<float>() + begin_;
    for (int64_t row = 0; row < count; ++row) {
      const RowState& r = rows_[row];
      loss[row] =
          target(row, 0) < 0 ? 0.0F : static_cast<float>(std::log(r.sum) + (double{r.max} - r.target));
    }
  }

  /// dlogits = grad_scale * (softmax - onehot(target)), over the logits, which are all of the block's.
  void gradients(ExecContext& ctx) {
    const Tensor dlogits{logits_, DType::kF32, {x_.dim(0), V_}};
    if (!ctx.planning) {
      ctx.pool->run(x_.dim(0), [&](int64_t row, int) {
        float* d = logits_ + row * V_;
        const int64_t i = target(row, 0);
        if (i < 0) {
          std::fill_n(d, V_, 0.0F);
          return;
        }
        kernels_.scaled_exp(d, V_, rows_[row].max, static_cast<float>(a_.grad_scale / rows_[row].sum));
        d[i] -= a_.grad_scale;
      });
    }
    matmul_nn(ctx, {.c = a_.dx.slice(0, begin_, begin_ + x_.dim(0)), .a = dlogits, .w = a_.w});
    matmul_tn(ctx, {.c = a_.dw, .a = dlogits, .b = x_, .compute = a_.w.dtype});
  }

  const vec::SoftmaxKernels& kernels_;
  const CrossEntropy& a_;
  BlockSize size_;
  int64_t V_;
  float* logits_;   // [rows, columns]
  RowState* rows_;  // [rows]
  int64_t begin_ = 0;
  Tensor x_;  // the block's
};

template <const vec::SoftmaxKernels& kernels>
void run(ExecContext& ctx, const CrossEntropy& a, std::span<std::byte> ws) {
  check_targets(a);
  Scratch scratch(ws);
  Loss loss(kernels, a, scratch);
  Workspace inner(ws.subspan(scratch.used_bytes()));
  ExecContext products = ctx;
  products.workspace = &inner;
  loss.run(products);
}

int64_t workspace(const ExecContext& ctx, const CrossEntropy& a) {
  Scratch scratch;
  Workspace inner;
  ExecContext products = ctx;
  products.workspace = &inner;
  products.planning = true;
  Loss(vec::avx2::softmax, a, scratch).run(products);
  return scratch.used_bytes() + inner.planned_bytes();
}

}  // namespace

std::vector<Impl<CrossEntropy>> cross_entropy_impls() {
  return {{"cpu.avx512", DeviceKind::kCpu, needs_avx512<CrossEntropy>, run<vec::avx512::softmax>, workspace},
          {"cpu.avx2", DeviceKind::kCpu, needs_avx2<CrossEntropy>, run<vec::avx2::softmax>, workspace},
          cross_entropy_ref};
}

}  // namespace moge::ops::cpu
