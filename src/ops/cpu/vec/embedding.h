// Row kernels of embedding.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct EmbeddingKernels {
  /// y[n] = the bf16 x[n], widened.
  void (*widen)(float* y, const uint16_t* x, int64_t n);
  /// y[n] += x[n].
  void (*add)(float* y, const float* x, int64_t n);
};
namespace avx2 {
extern const EmbeddingKernels embedding;
}
namespace avx512 {
extern const EmbeddingKernels embedding;
}

}  // namespace moge::ops::cpu::vec
