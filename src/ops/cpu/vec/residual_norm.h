// Row kernels of residual_norm.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

/// x + delta + rows, normalised into n and, unless null, into `normed`; x becomes the sum unless keep_x.
struct ResidualNormRow {
  float* n;               // [D]
  uint16_t* normed;       // [D] bf16 or null
  float* x;               // [D]
  const uint16_t* delta;  // [D] bf16 or null
  const uint16_t* rows;   // [.., D] bf16, row_stride apart: those of `slots` are added
  int64_t row_stride;
  const int32_t* slots;  // [S]
  int64_t S;
  const float* weight;  // [D]
  int64_t D;
  float eps;
  bool keep_x;
};
struct ResidualNormKernels {
  void (*row)(const ResidualNormRow& row);
};
namespace avx2 {
extern const ResidualNormKernels residual_norm;
}
namespace avx512 {
extern const ResidualNormKernels residual_norm;
}

}  // namespace moge::ops::cpu::vec
