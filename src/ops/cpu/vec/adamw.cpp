#include "ops/cpu/vec/adamw.h"

#include "ops/cpu/vec/bf16.h"
#include "ops/cpu/vec/f64.h"
#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

void update(float* param, uint16_t* param_bf16, float* m, float* v, const float* grad, const AdamWStep& s,
            int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    const F32 g = load_n(grad + i, lanes) * splat(s.grad_scale);
    const F32 m1 = fma(splat(s.beta1), load_n(m + i, lanes), splat(s.one_minus_beta1) * g);
    const F32 v1 = fma(splat(s.beta2), load_n(v + i, lanes), splat(s.one_minus_beta2) * g * g);
    const F32 denominator = fma(sqrt(v1), splat(s.inv_sqrt_bias2), splat(s.eps));
    const F32 p = load_n(param + i, lanes) * splat(s.decay) - splat(s.step_size) * m1 / denominator;
    store_n(m + i, m1, lanes);
    store_n(v + i, v1, lanes);
    store_n(param + i, p, lanes);
    if (param_bf16) store_bf16_n(param_bf16 + i, p, lanes);
  });
}

double sum_squares(const float* x, int64_t n) {
  SquareSum squares[4];  // enough chains to hide the adds' latency
  const int64_t step = 4 * kLanes;
  int64_t i = 0;
  for (; i + step <= n; i += step)
    for (int64_t j = 0; j < 4; ++j) squares[j].add(load(x + i + j * kLanes));
  for_lanes(n - i, [&](int64_t j, int64_t lanes) { squares[0].add(load_n(x + i + j, lanes)); });
  return (squares[0].total() + squares[1].total()) + (squares[2].total() + squares[3].total());
}

}  // namespace

extern const AdamWKernels adamw{update, sum_squares};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
