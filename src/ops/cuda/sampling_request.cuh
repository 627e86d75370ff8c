// What sampling.cu's kernel is asked for, and the numbers that it reckons in.
//
// Weights exp(z) are fixed-point integers: their sums are the same in any order, so the threads may add as
// they come, and precise to some 1e-11, so the tokens are those of the reference (which sums in double).
#pragma once
#include <climits>

#include "core/rng.h"
#include "ops/cuda/reduce.cuh"
#include "ops/sampling.h"

namespace moge::ops::cuda {

struct SamplingParams {
  int32_t* tokens;
  float* logprobs;
  const float* logits;
  const float *temperature, *top_p, *min_p, *repetition, *presence, *frequency;
  const int32_t* top_k;
  const int32_t* counts;
  const uint8_t* prompt;
  const int64_t *seeds, *steps;
  int64_t logits_stride, counts_stride, prompt_stride;
  int vocab;
  int slice;        ///< tokens of a block, a multiple of 4
  int weight_bits;  ///< the weight of the best token is 2^weight_bits; all together fit 63 bits
};

/// A request's parameters, those without a meaning switched off (ops/sampling.h). NaN takes the "off" side.
struct Request {
  __device__ Request(const SamplingParams& p, int b)
      : logits(p.logits + b * p.logits_stride),
        counts(p.counts ? p.counts + b * p.counts_stride : nullptr),
        prompt(p.prompt ? p.prompt + b * p.prompt_stride : nullptr),
        temperature(p.temperature[b] > 0 ? p.temperature[b] : 0.0F),
        top_k(p.top_k[b] >= 1 ? min(p.top_k[b], p.vocab) : p.vocab),
        top_p(p.top_p[b] < 1 ? fmaxf(p.top_p[b], 0.0F) : 1.0F),
        min_z(p.min_p[b] > 0 ? static_cast<float>(log(double{p.min_p[b]})) : -INFINITY),
        repetition(p.repetition[b] > 0 ? p.repetition[b] : 1.0F),
        presence(isnan(p.presence[b]) ? 0.0F : p.presence[b]),
        frequency(isnan(p.frequency[b]) ? 0.0F : p.frequency[b]),
        seed(p.seeds[b]),
        step(p.steps[b]) {}
  __device__ bool penalised() const {
    return (repetition != 1 && (counts || prompt)) || ((presence != 0 || frequency != 0) && counts);
  }
  /// The draw, uniform in [0, 1): the weight that a walk over tokens of this total must reach.
  __device__ uint64_t drawn(uint64_t total) const {
    const Rng rng(static_cast<uint64_t>(seed));
    const auto i = 2 * static_cast<uint64_t>(step);
    const uint64_t bits = uint64_t{rng.bits(i)} << 32 | rng.bits(i + 1);
    const double u = static_cast<double>(bits >> 11) * 0x1p-53;
    return min(static_cast<uint64_t>(u * static_cast<double>(total)) + 1, total);
  }
  /// Rounds as the reference: no fused operations.
  __device__ float adjusted(float x, int32_t count, bool prompted) const {
    if (isnan(x)) x = -INFINITY;
    if (count > 0 || prompted) x = x > 0 ? __fdiv_rn(x, repetition) : __fmul_rn(x, repetition);
    if (count > 0) x = __fsub_rn(__fsub_rn(x, __fmul_rn(frequency, static_cast<float>(count))), presence);
    return x;
  }
  const float* logits;
  const int32_t* counts;
  const uint8_t* prompt;
  float temperature;
  int top_k;
  float top_p, min_z, repetition, presence, frequency;
  int64_t seed, step;
};

/// Integers in the order of the floats, -0 = +0. Not for NaN.
__device__ __forceinline__ int float_key(float x) {
  const int bits = __float_as_int(x + 0.0F);
  return bits ^ ((bits >> 31) & INT_MAX);
}

__device__ __forceinline__ float key_float(int key) {
  return __int_as_float(key ^ ((key >> 31) & INT_MAX));
}

/// round(2^bits exp(z)) for z <= 0 and bits <= 45, to a relative error of 1e-11: 2^(n + r), |r| <= 1/2.
/// Doubles are rounded to integers by adding a number so large that an integer is what its mantissa can hold.
__device__ __forceinline__ uint64_t fixed_exp(float z, int bits) {
  if (!(z > -45.0F)) return 0;
  constexpr double kRound = 0x1.8p52;
  const double t = double{z} * 1.4426950408889634, shifted = t + kRound, r = t - (shifted - kRound);
  const int n = __double2loint(shifted);
  double e = 1.0178086009239699e-07;  // ln(2)^k / k!, k = 9 .. 0
  e = fma(e, r, 1.3215486790144307e-06);
  e = fma(e, r, 1.5252733804059841e-05);
  e = fma(e, r, 1.5403530393381608e-04);
  e = fma(e, r, 1.3333558146428443e-03);
  e = fma(e, r, 9.6181291076284772e-03);
  e = fma(e, r, 5.5504108664821580e-02);
  e = fma(e, r, 2.4022650695910071e-01);
  e = fma(e, r, 6.9314718055994531e-01);
  e = fma(e, r, 1.0);
  const double power = __hiloint2double((1023 + bits + n) << 20, 0);
  return static_cast<uint64_t>(__double_as_longlong(fma(e, power, 0x1p52))) & ((uint64_t{1} << 52) - 1);
}

/// The last token that is kept.
struct Cut {
  int key, index;
  __device__ bool keeps(float z, int index_of_z) const {
    const int k = float_key(z);
    return k > key || (k == key && index_of_z <= index);
  }
  __device__ bool operator<(const Cut& other) const {  ///< keeps less
    return key > other.key || (key == other.key && index < other.index);
  }
};

struct Candidate {
  int key, index;
  __device__ bool before(const Candidate& o) const {
    return key > o.key || (key == o.key && index < o.index);
  }
};

/// What a look at a part of the vocabulary tells, as float_key()s, which one instruction reduces over a warp.
struct Extremes {
  int best, token;  ///< the largest adjusted logit, and its first token
  int low;          ///< the smallest adjusted logit above -inf
  int raw_max;      ///< of the logits as they came; INT_MAX (a NaN) when one is NaN
  __device__ Extremes over_warp() const {
    const int top = __reduce_max_sync(kAllLanes, best);
    return {top, __reduce_min_sync(kAllLanes, best == top ? token : INT_MAX),
            __reduce_min_sync(kAllLanes, low), __reduce_max_sync(kAllLanes, raw_max)};
  }
};

}  // namespace moge::ops::cuda
