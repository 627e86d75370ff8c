// Random weights on the device that will read them: a model of 72 GB in seconds, without a file.
#pragma once
#include "ops/quantize.h"

namespace moge::ops {

/// Element i is a function of (seed, i) alone, Rng(seed).normal(i) scaled: normal(0, std) for f32 | bf16 |
/// f16; for i8 | fp8_e4m3 normal with standard deviation 127/4 or 448/4, clamped to the range (what quantised
/// normal weights look like; the scale is elsewhere). With `of_bf16` rounded to a bf16 first: f32 weights of
/// a checkpoint that holds these.
struct RandomFill {
  Tensor x;  // contiguous, f32 | bf16 | f16 | i8 | fp8_e4m3
  float std = 1;
  uint64_t seed = 0;
  bool of_bf16 = false;
};

/// The standard deviation of the stored numbers.
constexpr float fill_std(const RandomFill& a) {
  const bool eight_bits = a.x.dtype == DType::kI8 || a.x.dtype == DType::kFP8E4M3;
  return eight_bits ? largest_quantum(a.x.dtype) / 4 : a.std;
}

void random_fill(ExecContext& ctx, const RandomFill& args);
OpTable<RandomFill>& random_fill_table();

}  // namespace moge::ops
