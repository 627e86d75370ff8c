#include "ops/cpu/vec/embedding.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

void add(float* y, const float* x, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    store_n(y + i, load_n(y + i, lanes) + load_n(x + i, lanes), lanes);
  });
}

}  // namespace

extern const EmbeddingKernels embedding{add};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
