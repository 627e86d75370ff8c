// Cross-entropy token by token, logits recomputed instead of stored, sums in double. Operands are rounded as
// ops/matmul.h says.
#include <algorithm>
#include <cmath>

#include "ops/cpu/cross_entropy.h"
#include "ops/cpu/isa.h"

namespace moge::ops::cpu {

namespace {

/// The rounding that a bf16 weight asks of the other operand.
struct Rounded {
  bool bf16;
  double operator()(double x) const {
    const auto f = static_cast<float>(x);
    return bf16 ? to_f32(to_bf16(f)) : f;
  }
};

void run(ExecContext& ctx, const CrossEntropy& a, std::span<std::byte> ws) {
  check_targets(a);
  const int64_t T = a.x.dim(0), D = a.x.dim(1), V = a.w.dim(0);
  const Rounded rounded{a.w.dtype == DType::kBF16};
  const auto x = [&](int64_t t) { return a.x.ptr<float>() + t * a.x.stride(0); };
  const auto w = [&](int64_t v, int64_t i) -> double {
    const int64_t at = v * a.w.stride(0) + i;
    return rounded.bf16 ? to_f32(a.w.ptr<BF16>()[at]) : a.w.ptr<float>()[at];
  };
  const auto* targets = a.targets.ptr<int32_t>();
  const auto logit = [&](int64_t t, int64_t v) {
    double sum = 0;
    for (int64_t i = 0; i < D; ++i) sum += rounded(x(t)[i]) * w(v, i);
    return sum;
  };
  auto* lse = reinterpret_cast<double*>(ws.data());  // [T], then [threads, D]
  ctx.pool->run(T, [&](int64_t t, int) {
    double m = -INFINITY, sum = 0;
    for (int64_t v = 0; v < V; ++v) m = std::max(m, logit(t, v));
    for (int64_t v = 0; v < V; ++v) sum += std::exp(logit(t, v) - m);
    lse[t] = m + std::log(sum);
    a.loss.ptr<float>()[t] = targets[t] < 0 ? 0.0F : static_cast<float>(lse[t] - logit(t, targets[t]));
  });
  if (!a.dx) return;
  const auto dlogit = [&](int64_t t, int64_t v) {
    if (targets[t] < 0) return 0.0;
    return rounded(a.grad_scale * (std::exp(logit(t, v) - lse[t]) - (v == targets[t] ? 1.0 : 0.0)));
  };
  ctx.pool->run(T, [&](int64_t t, int thread) {
    double* acc = lse + T + thread * D;
    std::fill_n(acc, D, 0.0);
    for (int64_t v = 0; v < V; ++v) {
      const double d = dlogit(t, v);
      for (int64_t i = 0; i < D; ++i) acc[i] += d * w(v, i);
    }
    std::copy_n(acc, D, a.dx.ptr<float>() + t * a.dx.stride(0));
  });
  ctx.pool->run(V, [&](int64_t v, int thread) {
    float* dw = a.dw.ptr<float>() + v * a.dw.stride(0);
    double* acc = lse + T + thread * D;
    std::copy_n(dw, D, acc);
    for (int64_t t = 0; t < T; ++t) {
      const double d = dlogit(t, v);
      for (int64_t i = 0; i < D; ++i) acc[i] += d * rounded(x(t)[i]);
    }
    std::copy_n(acc, D, dw);
  });
}

Refusal supports(const CrossEntropy& a) {
  return a.w.layout == Layout::kStrided ? "" : "w is packed";
}

int64_t workspace(const ExecContext& ctx, const CrossEntropy& a) {
  return (a.x.dim(0) + ctx.pool->num_threads() * a.x.dim(1)) * static_cast<int64_t>(sizeof(double));
}

}  // namespace

constinit const Impl<CrossEntropy> cross_entropy_ref{"cpu.ref", DeviceKind::kCpu, supports, run, workspace};

void check_targets(const CrossEntropy& a) {
  const int64_t V = a.w.dim(0);
  const auto targets = elements<int32_t>(a.targets);
  for (size_t t = 0; t < targets.size(); ++t)
    check<ShapeError>(targets[t] >= -1 && targets[t] < V, "cross_entropy: targets[", t,
                      "]: expected -1 or a token below V=", V, ", got ", targets[t]);
}

}  // namespace moge::ops::cpu
