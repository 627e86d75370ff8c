// Eight neighbouring elements at a time: 32 bytes of f32, 16 of bf16 and f16, 8 of the eight-bit types.
// Addresses are multiples of 16 (of 8 for eight-bit elements).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <type_traits>

#include "core/tensor.h"

namespace moge::ops::cuda {

inline constexpr int kVec = 8;

__device__ __forceinline__ float low_bf16(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float high_bf16(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000U);
}
__device__ __forceinline__ void unpack_bf16(float (&x)[kVec], const uint4& v) {
  const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = low_bf16(pairs[i]);
    x[2 * i + 1] = high_bf16(pairs[i]);
  }
}

__device__ __forceinline__ void load_vec(float (&x)[kVec], const float* p) {
  const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
  x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
__device__ __forceinline__ void load_vec(float (&x)[kVec], const BF16* p) {
  unpack_bf16(x, *reinterpret_cast<const uint4*>(p));
}

__device__ __forceinline__ void store_vec(float* p, const float (&x)[kVec]) {
  reinterpret_cast<float4*>(p)[0] = {x[0], x[1], x[2], x[3]};
  reinterpret_cast<float4*>(p)[1] = {x[4], x[5], x[6], x[7]};
}
/// As BF16 or F16.
template <class T>
requires(std::is_same_v<T, BF16> || std::is_same_v<T, F16>) __device__ __forceinline__
    void store_vec(T* p, const float (&x)[kVec]) {
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<T, BF16>) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
      pairs[i] = reinterpret_cast<const uint32_t&>(pair);
    } else {
      const __half2 pair = __floats2half2_rn(x[2 * i], x[2 * i + 1]);
      pairs[i] = reinterpret_cast<const uint32_t&>(pair);
    }
  }
  *reinterpret_cast<uint4*>(p) = {pairs[0], pairs[1], pairs[2], pairs[3]};
}
/// Round to nearest even; the caller keeps |x| within 127 up to rounding. A number so large that its mantissa
/// holds only integers rounds faster than a conversion, of which a multiprocessor makes 16 a cycle.
__device__ __forceinline__ void store_vec(int8_t* p, const float (&x)[kVec]) {
  uint32_t bits[kVec], words[2];
#pragma unroll
  for (int i = 0; i < kVec; ++i) bits[i] = __float_as_uint(__fadd_rn(x[i], 0x1.8p23F));
#pragma unroll
  for (int i = 0; i < 2; ++i)
    words[i] = __byte_perm(__byte_perm(bits[4 * i], bits[4 * i + 1], 0x0040),
                           __byte_perm(bits[4 * i + 2], bits[4 * i + 3], 0x0040), 0x5410);
  *reinterpret_cast<uint2*>(p) = {words[0], words[1]};
}
/// Round to nearest even, saturating.
__device__ __forceinline__ void store_vec(FP8E4M3* p, const float (&x)[kVec]) {
  uint32_t words[2] = {};
#pragma unroll
  for (int i = 0; i < kVec; i += 2) {
    const uint32_t pair = __nv_cvt_float2_to_fp8x2({x[i], x[i + 1]}, __NV_SATFINITE, __NV_E4M3);
    words[i / 4] |= pair << (i % 4 * 8);
  }
  *reinterpret_cast<uint2*>(p) = {words[0], words[1]};
}

/// Whether vectors of eight tile the rows of [rows, n] (or absent).
inline bool rows_in_vecs(const Tensor& t) {
  if (!t) return true;
  const int64_t align = size_of(t.dtype) == 1 ? kVec : 16;
  return t.dim(-1) % kVec == 0 && t.stride(0) % kVec == 0 &&
         reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(align) == 0;
}

}  // namespace moge::ops::cuda
