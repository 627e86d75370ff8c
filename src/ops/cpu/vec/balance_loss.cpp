#include "ops/cpu/vec/balance_loss.h"

#include "ops/cpu/vec/f64.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

float dot_row(const float* probs, const float* factors, int64_t E) {
  F32 dots = splat(0);
  for_lanes(E, [&](int64_t i, int64_t n) { dots = fma(load_n(probs + i, n), load_n(factors + i, n), dots); });
  return sum(dots);
}

double z_block(float* dlse, const float* lse, float factor, int64_t n) {
  SquareSum squares;
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    const F32 v = load_n(lse + i, lanes);
    squares.add(v);
    if (dlse) store_n(dlse + i, splat(factor) * v, lanes);
  });
  return squares.total();
}

}  // namespace

extern const BalanceLossKernels balance_loss{dot_row, z_block};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
