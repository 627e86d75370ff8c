#include "ops/cpu/rmsnorm.h"

#include <algorithm>
#include <cmath>

#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"

namespace moge::ops::cpu {

namespace {

/// Rows of [T, D] or [T, H, D] (row_dims 1), or one number a row, [T] or [T, H] (row_dims 0): row r is head r
/// % H of token r / H.
struct HeadRows {
  explicit HeadRows(const Tensor& t, int row_dims = 1) : base(t ? t.ptr<float>() : nullptr) {
    if (!t) return;
    const bool heads = t.shape.ndim() == row_dims + 2;
    D = row_dims == 1 ? t.dim(-1) : 1;
    H = heads ? t.dim(1) : 1;
    count = t.dim(0) * H;
    token_stride = t.stride(0);
    head_stride = heads ? t.stride(1) : 0;
  }
  float* operator[](int64_t r) const {
    return base ? base + (r / H) * token_stride + (r % H) * head_stride : nullptr;
  }
  float* base;
  int64_t D = 0, H = 1, count = 0, token_stride = 0, head_stride = 0;
};

void fwd_row_ref(float* y, float* rstd, const float* x, const float* weight, int64_t D, float eps) {
  double sum = 0;
  for (int64_t i = 0; i < D; ++i) sum += double{x[i]} * x[i];
  const auto r = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(D) + eps));
  for (int64_t i = 0; i < D; ++i) y[i] = x[i] * r * weight[i];
  if (rstd) *rstd = r;
}

/// With x^ = x * rstd and g = dy * weight: dx = rstd * (g - x^ * mean(g * x^)), dweight += dy * x^.
void bwd_row_ref(float* dx, float* dweight, const float* dy, const float* x, const float* weight, float rstd,
                 const float* add, int64_t D) {
  double dot = 0;
  for (int64_t i = 0; i < D; ++i) dot += double{dy[i]} * weight[i] * x[i];
  const auto mean = static_cast<float>(dot * rstd / static_cast<double>(D));
  for (int64_t i = 0; i < D; ++i) {
    const float x_hat = x[i] * rstd;
    dweight[i] += dy[i] * x_hat;
    const float g = rstd * (dy[i] * weight[i] - x_hat * mean);
    dx[i] = add ? add[i] + g : g;
  }
}

}  // namespace

const vec::RmsnormKernels rmsnorm_ref{fwd_row_ref, bwd_row_ref};

namespace {

template <const vec::RmsnormKernels& kernels>
void fwd(ExecContext& ctx, const RmsnormFwd& a, std::span<std::byte>) {
  const HeadRows x(a.x);
  const HeadRows y(a.y);
  const auto* weight = a.weight.ptr<float>();
  const HeadRows rstd(a.rstd, 0);
  parallel_for(*ctx.pool, x.count, rows_per_task(x.D), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) kernels.fwd_row(y[r], rstd[r], x[r], weight, x.D, a.eps);
  });
}

template <const vec::RmsnormKernels& kernels>
void bwd(ExecContext& ctx, const RmsnormBwd& a, std::span<std::byte> ws) {
  const HeadRows x(a.x), dx(a.dx), dy(a.dy), add(a.add);
  const auto* weight = a.weight.ptr<float>();
  const HeadRows rstd(a.rstd, 0);
  auto* partial = reinterpret_cast<float*>(ws.data());  // [blocks, D]
  const int64_t grain = rows_per_task(x.D);
  const int64_t blocks = num_row_tasks(x.count, x.D);
  ctx.pool->run(blocks, [&](int64_t block, int) {
    float* dweight = partial + block * x.D;
    std::fill_n(dweight, x.D, 0.0F);
    for (int64_t r = block * grain; r < std::min((block + 1) * grain, x.count); ++r)
      kernels.bwd_row(dx[r], dweight, dy[r], x[r], weight, *rstd[r], add[r], x.D);
  });
  auto* dweight = a.dweight.ptr<float>();
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t i = 0; i < x.D; ++i) dweight[i] += partial[block * x.D + i];
}

int64_t bwd_workspace(const ExecContext&, const RmsnormBwd& a) {
  const int64_t D = a.x.dim(-1);
  return D == 0 ? 0 : num_row_tasks(a.x.numel() / D, D) * D * size_of(DType::kF32);
}

}  // namespace

std::vector<Impl<RmsnormFwd>> rmsnorm_fwd_impls() {
  return isa_impls<RmsnormFwd>(fwd<vec::avx512::rmsnorm>, fwd<vec::avx2::rmsnorm>, fwd<rmsnorm_ref>);
}

std::vector<Impl<RmsnormBwd>> rmsnorm_bwd_impls() {
  return isa_impls<RmsnormBwd>(bwd<vec::avx512::rmsnorm>, bwd<vec::avx2::rmsnorm>, bwd<rmsnorm_ref>,
                               bwd_workspace);
}

}  // namespace moge::ops::cpu
