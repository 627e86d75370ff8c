// Kernels of sampling, on blocks of the vocabulary.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

inline constexpr int64_t kVocabBlock = 64;

/// What adjusts the logits of tokens that were seen before.
struct Penalties {
  const int32_t* counts;  // [V], may be null
  const uint8_t* prompt;  // [V], may be null
  float repetition, presence, frequency;
};
struct SamplingKernels {
  /// z[i] = logits[first + i] after penalties, NaN as -inf; n <= kVocabBlock. Returns the largest.
  float (*adjust)(float* z, const float* logits, int64_t n, int64_t first, const Penalties* penalties);
  /// z[i] = (z[i] - top) / temperature.
  void (*temper)(float* z, int64_t n, float top, float temperature);
  /// Sum of exp(z[i]), n <= kVocabBlock.
  float (*sum_exp)(const float* z, int64_t n);
  /// The same over the z[i] >= bound, and how many they are, for a bound above -inf.
  float (*sum_exp_from)(const float* z, int64_t n, float bound, int64_t* count);
};
namespace avx2 {
extern const SamplingKernels sampling;
}
namespace avx512 {
extern const SamplingKernels sampling;
}

}  // namespace moge::ops::cpu::vec
