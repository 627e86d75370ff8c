#include "ops/cpu/vec/silu_mul.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

void fwd_row(float* h, const float* gate, const float* up, float weight, int64_t F) {
  const F32 w = splat(weight);
  for_lanes(F, [&](int64_t i, int64_t n) {
    const F32 g = load_n(gate + i, n);
    store_n(h + i, g * sigmoid(g) * load_n(up + i, n) * w, n);
  });
}

float bwd_row(float* dgate, float* dup, const float* dh, const float* gate, const float* up, float weight,
              int64_t F) {
  const F32 w = splat(weight);
  const F32 one = splat(1);
  F32 dweight = splat(0);
  for_lanes(F, [&](int64_t i, int64_t n) {
    const F32 d = load_n(dh + i, n);
    const F32 g = load_n(gate + i, n);
    const F32 u = load_n(up + i, n);
    const F32 s = sigmoid(g);
    const F32 silu = g * s;
    dweight = fma(d * silu, u, dweight);
    store_n(dgate + i, d * w * u * s * fma(g, one - s, one), n);
    store_n(dup + i, d * w * silu, n);
  });
  return sum(dweight);
}

}  // namespace

extern const SiluMulKernels silu_mul{fwd_row, bwd_row};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
