#include "ops/cpu/adamw.h"

#include <cmath>

#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vec/adamw.h"

namespace moge::ops::cpu {

namespace {

void update_ref(float* param, uint16_t* param_bf16, float* m, float* v, const float* grad,
                const vec::AdamWStep& s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = grad[i] * s.grad_scale;
    m[i] = s.beta1 * m[i] + s.one_minus_beta1 * g;
    v[i] = s.beta2 * v[i] + s.one_minus_beta2 * g * g;
    param[i] = param[i] * s.decay - s.step_size * m[i] / (std::sqrt(v[i]) * s.inv_sqrt_bias2 + s.eps);
    if (param_bf16) param_bf16[i] = to_bf16(param[i]).bits;
  }
}

double sum_squares_ref(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double{x[i]} * x[i];
  return sum;
}

const vec::AdamWKernels kRef{update_ref, sum_squares_ref};

vec::AdamWStep step_of(const AdamW& a) {
  const auto step = static_cast<double>(a.step);
  return {.decay = static_cast<float>(1 - double{a.lr} * a.weight_decay),
          .beta1 = a.beta1,
          .beta2 = a.beta2,
          .one_minus_beta1 = static_cast<float>(1 - double{a.beta1}),
          .one_minus_beta2 = static_cast<float>(1 - double{a.beta2}),
          .step_size = static_cast<float>(a.lr / (1 - std::pow(double{a.beta1}, step))),
          .inv_sqrt_bias2 = static_cast<float>(1 / std::sqrt(1 - std::pow(double{a.beta2}, step))),
          .eps = a.eps,
          .grad_scale = a.grad_scale};
}

template <const vec::AdamWKernels& kernels>
void update(ExecContext& ctx, const AdamW& a, std::span<std::byte>) {
  const vec::AdamWStep step = step_of(a);
  const Rows<float> param(a.param), m(a.m), v(a.v), grad(a.grad);
  const Rows<BF16> param_bf16(a.param_bf16);
  parallel_for(*ctx.pool, a.param.dim(0), rows_per_task(1), [&](int64_t begin, int64_t end) {
    kernels.update(param[begin], param_bf16 ? &param_bf16[begin]->bits : nullptr, m[begin], v[begin],
                   grad[begin], step, end - begin);
  });
}

template <const vec::AdamWKernels& kernels>
void squares(ExecContext& ctx, const SumSquares& a, std::span<std::byte> ws) {
  const int64_t n = a.x.dim(0);
  const Rows<float> x(a.x);
  auto* partial = reinterpret_cast<double*>(ws.data());  // [tasks]
  parallel_for(*ctx.pool, n, rows_per_task(1), [&](int64_t begin, int64_t end) {
    partial[begin / rows_per_task(1)] = kernels.sum_squares(x[begin], end - begin);
  });
  double sum = 0;
  for (int64_t i = 0; i < num_row_tasks(n, 1); ++i) sum += partial[i];
  *a.sum.ptr<float>() = static_cast<float>(sum);
}

int64_t squares_workspace(const ExecContext&, const SumSquares& a) {
  return num_row_tasks(a.x.dim(0), 1) * static_cast<int64_t>(sizeof(double));
}

}  // namespace

std::vector<Impl<AdamW>> adamw_impls() {
  return isa_impls<AdamW>(update<vec::avx512::adamw>, update<vec::avx2::adamw>, update<kRef>);
}

std::vector<Impl<SumSquares>> sum_squares_impls() {
  return isa_impls<SumSquares>(squares<vec::avx512::adamw>, squares<vec::avx2::adamw>, squares<kRef>,
                               squares_workspace);
}

}  // namespace moge::ops::cpu
