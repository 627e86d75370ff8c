#include "ops/cpu/vec/softmax.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// Independent sums: they hide the latency and keep rounding errors of long rows down.
constexpr int64_t kSums = 4;

float max_row(const float* x, int64_t n) {
  float tail = -__builtin_inff();
  F32 top = splat(tail);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) top = max(top, load(x + i));
  for (; i < n; ++i) tail = x[i] > tail ? x[i] : tail;
  return tail > max_of(top) ? tail : max_of(top);
}

SoftmaxStats stats(const float* x, int64_t n) {
  const float top = max_row(x, n);
  const F32 shift = splat(top);
  F32 sums[kSums] = {splat(0), splat(0), splat(0), splat(0)};
  int64_t i = 0;
  for (; i + kSums * kLanes <= n; i += kSums * kLanes)
#pragma GCC unroll 4
    for (int64_t j = 0; j < kSums; ++j) sums[j] = sums[j] + exp(load(x + i + j * kLanes) - shift);
  for (; i + kLanes <= n; i += kLanes) sums[0] = sums[0] + exp(load(x + i) - shift);
  if (i < n) {
    float tail[kLanes];
    store(tail, exp(load_first(x + i, n - i) - shift));
    sums[1] = sums[1] + load_first(tail, n - i);
  }
  return {top, sum((sums[0] + sums[1]) + (sums[2] + sums[3]))};
}

void scaled_exp(float* x, int64_t n, float max, float factor) {
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    store_n(x + i, exp(load_n(x + i, lanes) - splat(max)) * splat(factor), lanes);
  });
}

}  // namespace

extern const SoftmaxKernels softmax{stats, scaled_exp};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
