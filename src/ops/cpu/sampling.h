// The CPU implementations of ops/sampling.h, fastest first, and what they share.
#pragma once
#include <cstdint>

#include "ops/sampling.h"

namespace moge::ops::cpu {

std::vector<Impl<Sampling>> sampling_impls();

/// One request of a batch, with the parameters that have no meaning switched off.
struct SamplingRequest {
  SamplingRequest(const Sampling& args, int64_t b);
  int64_t V;
  const float* logits;    // [V]
  const int32_t* counts;  // [V]; null: nothing generated
  const uint8_t* prompt;  // [V]; null: no prompt
  float temperature;      ///< 0: greedy
  int64_t top_k;          ///< 1..V
  double top_p;           ///< 0..1
  float min_z;            ///< log(min_p), what (logit - largest) / temperature must reach; -inf: off
  float repetition, presence, frequency;
  double u;  ///< the draw, uniform in [0, 1)
  bool penalised() const;
};

/// The reference (sampling_ref.cpp).
extern const Impl<Sampling> sampling_ref;

}  // namespace moge::ops::cpu
