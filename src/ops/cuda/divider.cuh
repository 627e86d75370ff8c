// Division of a row by its scale, as the reference does it.
#pragma once
#include "ops/cuda/vec.cuh"

namespace moge::ops::cuda {

/// x / scale, correctly rounded, for the many elements of a row: with 1 / scale rounded correctly, two steps
/// of Newton's method on the quotient (Markstein 1990). Where its residues would be subnormal, a division.
class Divider {
 public:
  __device__ explicit Divider(float scale)
      : scale_(scale), inverse_(1 / scale), by_inverse_(scale >= 0x1p-60F && scale < 0x1p60F) {}
  __device__ float scale() const { return scale_; }
  __device__ void divide(float (&x)[kVec]) const {
    if (by_inverse_)
      multiply<2>(x);
    else
      divide_plainly(x);
  }

  /// Which of the next two is right: for code that has many vectors, and branches once.
  __device__ bool by_inverse() const { return by_inverse_; }
  /// In so many steps; one is enough for the quantum of a bf16's quotient (quantize_cases.cpp has them all).
  template <int kSteps>
  __device__ void multiply(float (&x)[kVec]) const {
#pragma unroll
    for (float& v : x) {
      float q = __fmul_rn(v, inverse_);
#pragma unroll
      for (int i = 0; i < kSteps; ++i) q = __fmaf_rn(__fmaf_rn(-q, scale_, v), inverse_, q);
      v = q;
    }
  }
  __device__ void divide_plainly(float (&x)[kVec]) const {
#pragma unroll
    for (float& v : x) v = scale_ == 0 ? 0 : __fdiv_rn(v, scale_);
  }

 private:
  float scale_, inverse_;
  bool by_inverse_;
};

}  // namespace moge::ops::cuda
