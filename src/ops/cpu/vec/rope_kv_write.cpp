#include "ops/cpu/vec/rope_kv_write.h"

#include "ops/cpu/vec/f64.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

void norm(float* x, const float* weight, int64_t Dh, float eps) {
  SquareSum squares;
  for_lanes(Dh, [&](int64_t i, int64_t n) { squares.add(load_n(x + i, n)); });
  const F32 rstd = squares.inverse_rms(Dh, eps);
  for_lanes(
      Dh, [&](int64_t i, int64_t n) { store_n(x + i, load_n(x + i, n) * rstd * load_n(weight + i, n), n); });
}

void turn(float* x, const float* cos_sin, int64_t Dh) {
  const int64_t half = Dh / 2;
  for_lanes(half, [&](int64_t i, int64_t n) {
    const F32 a = load_n(x + i, n), b = load_n(x + half + i, n);
    const F32 c = load_n(cos_sin + i, n), s = load_n(cos_sin + half + i, n);
    store_n(x + i, a * c - b * s, n);
    store_n(x + half + i, b * c + a * s, n);
  });
}

}  // namespace

extern const RopeKvWriteKernels rope_kv_write{norm, turn};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
