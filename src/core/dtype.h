// Element types. bf16 is the upper half of an fp32, rounded to nearest even.
#pragma once
#include <bit>
#include <cstdint>

#include "core/error.h"

namespace moge {

enum class DType : uint8_t { kF32, kBF16, kF16, kI64, kI32, kI8, kU8, kFP8E4M3 };

constexpr int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kFP8E4M3:
      return 1;
  }
  return 0;
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kI64:
      return "i64";
    case DType::kI32:
      return "i32";
    case DType::kI8:
      return "i8";
    case DType::kU8:
      return "u8";
    case DType::kFP8E4M3:
      return "fp8_e4m3";
  }
  return "?";
}

struct BF16 {
  uint16_t bits;
};

constexpr float to_f32(BF16 x) {
  return std::bit_cast<float>(uint32_t{x.bits} << 16);
}

/// Round to nearest even; NaN stays NaN (quiet). vcvtneps2bf16 rounds alike but flushes subnormals.
constexpr BF16 to_bf16(float x) {
  const auto u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffU) > 0x7f800000U) return {static_cast<uint16_t>((u >> 16) | 0x40U)};
  return {static_cast<uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16)};
}

/// IEEE binary16. Software conversions: for checkpoints, not for hot loops.
struct F16 {
  uint16_t bits;
};

constexpr float to_f32(F16 x) {
  const uint32_t sign = uint32_t{x.bits & 0x8000U} << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1fU;
  const uint32_t mantissa = x.bits & 0x3ffU;
  if (exponent == 0) return (sign != 0 ? -1.0F : 1.0F) * static_cast<float>(mantissa) * 0x1p-24F;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

/// Round to nearest even; beyond 65520 infinity; NaN stays NaN (quiet).
constexpr F16 to_f16(float x) {
  const auto u = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (u >> 16) & 0x8000U;
  const uint32_t magnitude = u & 0x7fffffffU;
  uint32_t bits = 0;
  if (magnitude > 0x7f800000U) {
    bits = 0x7e00U | ((magnitude >> 13) & 0x3ffU);
  } else if (magnitude >= 0x477ff000U) {
    bits = 0x7c00U;
  } else if (magnitude < 0x38800000U) {  // subnormal: one ulp of 0.5F is the spacing, so the addition rounds
    bits = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - std::bit_cast<uint32_t>(0.5F);
  } else {
    bits = ((magnitude + 0xfffU + ((magnitude >> 13) & 1U)) >> 13) - (112U << 10);
  }
  return {static_cast<uint16_t>(sign | bits)};
}

/// OCP 8-bit E4M3 ("FP8 Formats for Deep Learning", arXiv 2209.05433): exponent bias 7, no infinities, 0x7f
/// and 0xff are NaN. Largest value 448, smallest normal 2^-6, spacing below it 2^-9.
struct FP8E4M3 {
  uint8_t bits;
};
inline constexpr float kMaxFP8E4M3 = 448;

constexpr float to_f32(FP8E4M3 x) {
  const uint32_t sign = uint32_t{x.bits & 0x80U} << 24;
  const uint32_t exponent = (x.bits >> 3) & 0xfU;
  const uint32_t mantissa = x.bits & 7U;
  if ((x.bits & 0x7fU) == 0x7fU) return std::bit_cast<float>(sign | 0x7fc00000U);
  if (exponent == 0) return (sign != 0 ? -1.0F : 1.0F) * static_cast<float>(mantissa) * 0x1p-9F;
  return std::bit_cast<float>(sign | ((exponent + 120) << 23) | (mantissa << 20));
}

/// Round to nearest even; beyond 448, infinity included, 448 (as the GPU's satfinite); NaN stays NaN.
constexpr FP8E4M3 to_fp8(float x) {
  const auto u = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (u >> 24) & 0x80U;
  const uint32_t magnitude = u & 0x7fffffffU;
  uint32_t bits = 0;
  if (magnitude > 0x7f800000U) {
    bits = 0x7f;
  } else if (magnitude >= 0x43e00000U) {  // 448
    bits = 0x7e;
  } else if (magnitude < 0x3c800000U) {  // subnormal: one ulp of 2^14 is the spacing, so the addition rounds
    bits =
        std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14F) - std::bit_cast<uint32_t>(0x1p14F);
  } else {
    bits = ((magnitude + 0x7ffffU + ((magnitude >> 20) & 1U)) >> 20) - (120U << 3);
  }
  return {static_cast<uint8_t>(sign | bits)};
}

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::kF32;
}
template <>
constexpr DType dtype_of<BF16>() {
  return DType::kBF16;
}
template <>
constexpr DType dtype_of<F16>() {
  return DType::kF16;
}
template <>
constexpr DType dtype_of<FP8E4M3>() {
  return DType::kFP8E4M3;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::kI32;
}
template <>
constexpr DType dtype_of<int64_t>() {
  return DType::kI64;
}
template <>
constexpr DType dtype_of<int8_t>() {
  return DType::kI8;
}
template <>
constexpr DType dtype_of<uint8_t>() {
  return DType::kU8;
}

}  // namespace moge
