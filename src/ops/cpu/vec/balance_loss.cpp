#include "ops/cpu/vec/balance_loss.h"

#include "ops/cpu/vec/f64.h"
#include "ops/cpu/vec/ids.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// An addition in memory a cycle; several tables, so that equal ids do not wait for each other, gain nothing.
int64_t count(int32_t* counts, const int32_t* ids, int64_t ids_stride, int64_t E, int64_t T, int64_t K) {
  return for_ids(
      ids, ids_stride, E, T, K,
      [&](int64_t, int64_t, const int32_t* id) {
        for (int64_t i = 0; i < 4; ++i) ++counts[id[i]];
      },
      [&](int64_t, int64_t, int32_t id) { ++counts[id]; });
}

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

extern const BalanceLossKernels balance_loss{count, dot_row, z_block};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
