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
/// Four e4m3 of a register as f16, exactly: in order ...
__device__ __forceinline__ void unpack_fp8(uint32_t x, uint32_t& first, uint32_t& second) {
  first = fp8_pair(x);
  second = fp8_pair(x >> 16);
}
/// ... or 0 and 2, 1 and 3.
__device__ __forceinline__ void unpack_fp8_alternate(uint32_t x, uint32_t& first, uint32_t& second) {
  unpack_fp8(__byte_perm(x, 0, 0x3120), first, second);
}

/// The lower and the upper bytes of four 16-bit numbers.
__device__ __forceinline__ uint32_t low_bytes(uint32_t x, uint32_t y) {
  return __byte_perm(x, y, 0x6420);
}
__device__ __forceinline__ uint32_t high_bytes(uint32_t x, uint32_t y) {
  return __byte_perm(x, y, 0x7531);
}

}  // namespace moge::ops::cuda
