// Row kernel of embedding.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct EmbeddingKernels {
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
