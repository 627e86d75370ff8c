#include "ops/cpu/vec/sampling.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

constexpr float kInfinity = __builtin_inff();

float largest(const float* z, int64_t n) {
  F32 top = splat(-kInfinity);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) top = max(top, load(z + i));
  float best = max_of(top);
  for (; i < n; ++i) best = z[i] > best ? z[i] : best;
  return best;
}

/// Plain loops: the compiler vectorises them for the instruction set, and they round as the reference does.
float adjust(float* z, const float* logits, int64_t n, int64_t first, const Penalties* penalties) {
  const float* x = logits + first;
  for (int64_t i = 0; i < n; ++i) z[i] = x[i] == x[i] ? x[i] : -kInfinity;
  if (!penalties) return largest(z, n);
  const Penalties p = *penalties;
  int32_t counts[kVocabBlock] = {};
  int32_t seen[kVocabBlock] = {};
  if (p.counts)
    for (int64_t i = 0; i < n; ++i) counts[i] = p.counts[first + i];
  if (p.prompt)
    for (int64_t i = 0; i < n; ++i) seen[i] = p.prompt[first + i];
  for (int64_t i = 0; i < n; ++i) {
    const float repeated = z[i] > 0 ? z[i] / p.repetition : z[i] * p.repetition;
    const float y = (counts[i] > 0 || seen[i] != 0) ? repeated : z[i];
    const float lowered = y - p.frequency * static_cast<float>(counts[i]) - p.presence;
    z[i] = counts[i] > 0 ? lowered : y;
  }
  return largest(z, n);
}

void temper(float* z, int64_t n, float top, float temperature) {
  for (int64_t i = 0; i < n; ++i) z[i] = (z[i] - top) / temperature;
}

float sum_exp(const float* z, int64_t n) {
  F32 total = splat(0);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) total = total + exp(load(z + i));
  if (i < n) {
    float tail[kLanes];
    store(tail, exp(load_first(z + i, n - i)));
    total = total + load_first(tail, n - i);
  }
  return sum(total);
}

float sum_exp_from(const float* z, int64_t n, float bound, int64_t* count) {
  const F32 none = splat(0), one = splat(1), from = splat(bound);
  F32 total = none, ones = none;
  const auto add = [&](F32 x) {
    total = total + (x >= from ? exp(x) : none);
    ones = ones + (x >= from ? one : none);
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add(load(z + i));
  if (i < n) {
    float tail[kLanes];
    store(tail, splat(-kInfinity));
    for (int64_t lane = 0; i + lane < n; ++lane) tail[lane] = z[i + lane];
    add(load(tail));
  }
  *count = static_cast<int64_t>(sum(ones));
  return sum(total);
}

}  // namespace

extern const SamplingKernels sampling{adjust, temper, sum_exp, sum_exp_from};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
