// Tiles of keys or values in shared memory, as the copy engine lays them out, and their elements as bf16
// operands of mma.
#pragma once
#include "core/dtype.h"
#include "ops/cuda/mma.cuh"

namespace moge::ops::cuda {

/// Positions of a tile.
inline constexpr int kTilePositions = 64;

template <DType kDType, int kDh>
struct KvTile {
  static constexpr bool kQuantised = size_of(kDType) == 1;
  static constexpr int kRowBytes = kDh * static_cast<int>(size_of(kDType));
  static constexpr int kBytes = kTilePositions * kRowBytes;
  /// A tile is boxes side by side, whose rows are one span of the swizzle.
  static constexpr int kBoxRowBytes = kRowBytes < 128 ? kRowBytes : 128;
  static constexpr int kBoxes = kRowBytes / kBoxRowBytes;
  static_assert(kBoxRowBytes == 64 || kBoxRowBytes == 128);

  /// Where the 16 bytes `chunk` of a position's row are.
  static __device__ __forceinline__ uint32_t at(uint32_t tile, int position, int chunk) {
    if constexpr (kBoxRowBytes == 128)
      return tile + (chunk >> 3) * (kTilePositions * 128) + position * 128 + (((chunk ^ position) & 7) << 4);
    else
      return tile + position * 64 + (((chunk ^ (position >> 1)) & 3) << 4);
  }
};

/// Four eight-bit elements of a register as bf16, exactly: bytes 0 and 2, bytes 1 and 3.
template <DType kDType>
__device__ __forceinline__ void unpack_bytes(uint32_t x, uint32_t& even, uint32_t& odd) {
  if constexpr (kDType == DType::kI8) {
    // 128 + the low seven bits, minus 128 or, with the sign bit, 256: bf16 holds all three exactly.
    const auto signed_bytes = [](uint32_t y) {
      uint32_t value;
      asm("sub.rn.bf16x2 %0, %1, %2;"
          : "=r"(value)
          : "r"((y & 0x007f007fU) | 0x43004300U), "r"((y & 0x00800080U) | 0x43004300U));
      return value;
    };
    even = signed_bytes(x);
    odd = signed_bytes(x >> 8);
  } else {
    // e4m3's exponent and mantissa in the places of bf16's are the value times 2^(7 - 127), subnormals too.
    const auto scaled = [](uint32_t y) {
      uint32_t value;
      asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(value) : "r"(y), "r"(0x7b807b80U));
      return value;
    };
    even = scaled(((x << 8) & 0x80008000U) | ((x << 4) & 0x07f007f0U));
    odd = scaled((x & 0x80008000U) | ((x >> 4) & 0x07f007f0U));
  }
}

}  // namespace moge::ops::cuda
