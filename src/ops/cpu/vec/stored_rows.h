// Rows between fp32 and the numbers that weights and serving store.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct StoredRowKernels {
  /// q[n] = x / scale to nearest even with scale = max|x| / 127, which is returned (ops/quantize.h).
  float (*to_i8)(int8_t* q, const float* x, int64_t n);
  void (*to_bf16)(uint16_t* to, const float* x, int64_t n);
  void (*from_bf16)(float* to, const uint16_t* x, int64_t n);
};
namespace avx2 {
extern const StoredRowKernels stored_rows;
}
namespace avx512 {
extern const StoredRowKernels stored_rows;
}

}  // namespace moge::ops::cpu::vec
