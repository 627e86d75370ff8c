// Elements of any dtype as fp32, for the reference loops: a switch for each, which no fast path affords.
#pragma once
#include <cmath>

#include "core/tensor.h"

namespace moge::ops::cpu {

/// The element `offset` elements after the tensor's first.
inline float load_element(const Tensor& t, int64_t offset) {
  switch (t.dtype) {
    case DType::kF32:
      return static_cast<const float*>(t.data)[offset];
    case DType::kBF16:
      return to_f32(static_cast<const BF16*>(t.data)[offset]);
    case DType::kF16:
      return to_f32(static_cast<const F16*>(t.data)[offset]);
    case DType::kI8:
      return static_cast<const int8_t*>(t.data)[offset];
    case DType::kFP8E4M3:
      return to_f32(static_cast<const FP8E4M3*>(t.data)[offset]);
    default:
      throw ShapeError(str("no arithmetic on ", t.str()));
  }
}

/// Round to nearest even. i8 saturates to -127..127 (symmetric) and holds 0 for NaN.
inline void store_element(const Tensor& t, int64_t offset, float value) {
  switch (t.dtype) {
    case DType::kF32:
      static_cast<float*>(t.data)[offset] = value;
      return;
    case DType::kBF16:
      static_cast<BF16*>(t.data)[offset] = to_bf16(value);
      return;
    case DType::kF16:
      static_cast<F16*>(t.data)[offset] = to_f16(value);
      return;
    case DType::kI8:
      static_cast<int8_t*>(t.data)[offset] =
          std::isnan(value)
              ? int8_t{0}
              : static_cast<int8_t>(std::nearbyint(std::fmin(std::fmax(value, -127.0F), 127.0F)));
      return;
    case DType::kFP8E4M3:
      static_cast<FP8E4M3*>(t.data)[offset] = to_fp8(value);
      return;
    default:
      throw ShapeError(str("no arithmetic on ", t.str()));
  }
}

}  // namespace moge::ops::cpu
