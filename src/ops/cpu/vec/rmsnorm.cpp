#include "ops/cpu/vec/rmsnorm.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

void fwd_row(float* y, float* rstd, const float* x, const float* weight, int64_t D, float eps) {
  F32 squares = splat(0);
  for_lanes(D, [&](int64_t i, int64_t n) {
    const F32 v = load_n(x + i, n);
    squares = fma(v, v, squares);
  });
  const float r = 1.0F / __builtin_sqrtf(sum(squares) / static_cast<float>(D) + eps);
  const F32 scale = splat(r);
  for_lanes(
      D, [&](int64_t i, int64_t n) { store_n(y + i, load_n(x + i, n) * scale * load_n(weight + i, n), n); });
  if (rstd) *rstd = r;
}

void bwd_row(float* dx, float* dweight, const float* dy, const float* x, const float* weight, float rstd,
             const float* add, int64_t D) {
  F32 dot = splat(0);
  for_lanes(D, [&](int64_t i, int64_t n) {
    dot = fma(load_n(dy + i, n) * load_n(weight + i, n), load_n(x + i, n), dot);
  });
  const F32 mean = splat(sum(dot) * rstd / static_cast<float>(D));
  const F32 r = splat(rstd);
  for_lanes(D, [&](int64_t i, int64_t n) {
    const F32 g = load_n(dy + i, n);
    const F32 x_hat = load_n(x + i, n) * r;
    store_n(dweight + i, fma(g, x_hat, load_n(dweight + i, n)), n);
    const F32 d = r * (g * load_n(weight + i, n) - x_hat * mean);
    store_n(dx + i, add ? d + load_n(add + i, n) : d, n);
  });
}

}  // namespace

extern const RmsnormKernels rmsnorm{fwd_row, bwd_row};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
