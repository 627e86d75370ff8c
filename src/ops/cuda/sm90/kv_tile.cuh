// Tiles of keys or values in shared memory, as the copy engine lays them out, and their elements as
// operands of mma.
#pragma once
#include "core/dtype.h"
#include "ops/cuda/mma.cuh"

namespace moge::ops::cuda {

template <DType kDType, int kDh, int kPositions>
struct KvTile {
  static constexpr bool kQuantised = size_of(kDType) == 1;
  static constexpr int kRowBytes = kDh * static_cast<int>(size_of(kDType));
  static constexpr int kBytes = kPositions * kRowBytes;
  /// A tile is boxes side by side, whose rows are one span of the swizzle.
  static constexpr int kBoxRowBytes = kRowBytes < 128 ? kRowBytes : 128;
  static constexpr int kBoxes = kRowBytes / kBoxRowBytes;
  static_assert(kBoxRowBytes == 64 || kBoxRowBytes == 128);

  /// Where the 16 bytes `chunk` of a position's row are.
  static __device__ __forceinline__ uint32_t at(uint32_t tile, int position, int chunk) {
    if constexpr (kBoxRowBytes == 128)
      return tile + (chunk >> 3) * (kPositions * 128) + position * 128 + (((chunk ^ position) & 7) << 4);
    else
      return tile + position * 64 + (((chunk ^ (position >> 1)) & 3) << 4);
  }
};

/// Two e4m3 as f16, which holds them all.
__device__ __forceinline__ uint32_t fp8_pair(uint32_t x) {
  uint32_t pair;
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.rn.f16x2.e4m3x2 %0, low;}" : "=r"(pair) : "r"(x));
  return pair;
}
/// Signed bytes 0 and 2 as f16: with the sign bit flipped they are, plus 128, the last bits of 1024's
/// mantissa.
/// The mask, kEvenBytes, comes from where the compiler does not see its value: an instruction takes one
/// constant.
__device__ __forceinline__ uint32_t i8_pair(uint32_t x, uint32_t mask) {
  uint32_t pair;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"((x & mask) ^ 0x64806480U), "r"(0x64806480U));
  return pair;
}
inline constexpr uint32_t kEvenBytes = 0x00ff00ffU;

/// Four eight-bit elements of a register as f16, exactly: 0 and 2, 1 and 3. even_bytes:
/// in_register(kEvenBytes).
template <DType kDType>
__device__ __forceinline__ void unpack_alternate(uint32_t x, uint32_t even_bytes, uint32_t& first,
                                                 uint32_t& second) {
  if constexpr (kDType == DType::kI8) {
    first = i8_pair(x, even_bytes);
    second = i8_pair(x >> 8, even_bytes);
  } else {
    x = __byte_perm(x, 0, 0x3120);
    first = fp8_pair(x);
    second = fp8_pair(x >> 16);
  }
}

/// The same in the pairs that are cheapest ...
template <DType kDType>
__device__ __forceinline__ void unpack_any(uint32_t x, uint32_t even_bytes, uint32_t& first,
                                           uint32_t& second) {
  if constexpr (kDType == DType::kI8) {
    unpack_alternate<kDType>(x, even_bytes, first, second);
  } else {
    first = fp8_pair(x);
    second = fp8_pair(x >> 16);
  }
}
/// ... and the same pairs of f16: x is elements 0 and 1, y 2 and 3.
template <DType kDType>
__device__ __forceinline__ void pair_any(uint32_t x, uint32_t y, uint32_t& first, uint32_t& second) {
  first = kDType == DType::kI8 ? __byte_perm(x, y, 0x5410) : x;
  second = kDType == DType::kI8 ? __byte_perm(x, y, 0x7632) : y;
}

}  // namespace moge::ops::cuda
