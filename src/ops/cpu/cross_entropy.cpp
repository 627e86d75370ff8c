// Blocks of tokens against chunks of the vocabulary, the products by ops/matmul.h. A block whose logits over
// the whole vocabulary fit the buffer computes them once; for very large vocabularies they come in chunks,
// once for the softmax and again for the gradient.
#include "ops/cpu/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "ops/cpu/isa.h"
#include "ops/cpu/scratch.h"
#include "ops/cpu/vec/softmax.h"
#include "ops/matmul.h"

namespace moge::ops::cpu {

namespace {

constexpr int64_t kLogits = 4 << 20;  ///< of one block: 16 MB, about a last-level cache
constexpr int64_t kMinRows = 64;      ///< fewer make the products bound by the weight's bandwidth
constexpr int64_t kChunkedRows = 256;

struct BlockSize {
  explicit BlockSize(const CrossEntropy& a) {
    const int64_t T = a.x.dim(0), V = a.w.dim(0);
    rows = std::clamp<int64_t>(kLogits / std::max<int64_t>(V, 1), 1, std::max<int64_t>(T, 1));
    columns = V;
    // A packed weight cannot be cut.
    if (rows >= std::min(T, kMinRows) || a.w.layout != Layout::kStrided) return;
    rows = std::min(T, kChunkedRows);
    columns = std::min(V, kLogits / rows);
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
    if (!a_.dx) return;
    for (int64_t v = 0; v < V_; v += size_.columns)
      gradients(ctx, v, size_.columns < V_ ? logits(ctx, v) : chunk(v));
  }

  Tensor weights(int64_t v) const {
    return size_.columns < V_ ? a_.w.slice(0, v, std::min(V_, v + size_.columns)) : a_.w;
  }
  Tensor chunk(int64_t v) const {
    return {logits_, DType::kF32, {x_.dim(0), std::min(size_.columns, V_ - v)}};
  }
  Tensor logits(ExecContext& ctx, int64_t v) const {
    const Tensor c = chunk(v);
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

  /// dlogits = grad_scale * (softmax - onehot(target)), over the logits.
  void gradients(ExecContext& ctx, int64_t v, const Tensor& logits) {
    const int64_t n = logits.dim(1);
    if (!ctx.planning) {
      ctx.pool->run(logits.dim(0), [&](int64_t row, int) {
        float* x = logits.ptr<float>() + row * n;
        if (target(row, 0) < 0) {
          std::fill_n(x, n, 0.0F);
          return;
        }
        kernels_.scaled_exp(x, n, rows_[row].max, static_cast<float>(a_.grad_scale / rows_[row].sum));
        const int64_t i = target(row, v);
        if (i >= 0 && i < n) x[i] -= a_.grad_scale;
      });
    }
    const Tensor w = weights(v), dx = a_.dx.slice(0, begin_, begin_ + x_.dim(0));
    matmul_nn(ctx, {.c = dx, .a = logits, .w = w, .add = v > 0 ? dx : Tensor{}});
    matmul_tn(ctx, {.c = a_.dw.slice(0, v, v + n), .a = logits, .b = x_, .compute = w.dtype});
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
