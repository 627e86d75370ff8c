#include "ops/cpu/vec/residual_norm.h"

#include "ops/cpu/vec/bf16.h"
#include "ops/cpu/vec/f64.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

void row(const ResidualNormRow& a) {
  SquareSum squares;
  for_lanes(a.D, [&](int64_t i, int64_t lanes) {
    F32 sum = load_n(a.x + i, lanes);
    if (a.delta) sum = sum + load_bf16_n(a.delta + i, lanes);
    for (int64_t s = 0; s < a.S; ++s) sum = sum + load_bf16_n(a.rows + a.slots[s] * a.row_stride + i, lanes);
    if (!a.keep_x) store_n(a.x + i, sum, lanes);
    store_n(a.n + i, sum, lanes);
    squares.add(sum);
  });
  const F32 rstd = squares.inverse_rms(a.D, a.eps);
  for_lanes(a.D, [&](int64_t i, int64_t lanes) {
    const F32 n = load_n(a.n + i, lanes) * rstd * load_n(a.weight + i, lanes);
    store_n(a.n + i, n, lanes);
    if (a.normed) store_bf16_n(a.normed + i, n, lanes);
  });
}

}  // namespace

extern const ResidualNormKernels residual_norm{row};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
