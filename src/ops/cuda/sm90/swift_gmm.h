// SwiftGMM, quant_matmul for Hopper: see swift_gmm.cuh for the kernel, docs/kernels/swift_gmm.md for its log.
#pragma once
#include <cuda.h>

#include "ops/quant_matmul.h"

namespace moge::ops::cuda {

/// "cuda.swift_gmm". Takes K of a multiple of 16 bytes, any N and rows, up to kSwiftMaxGroups groups.
Impl<QuantMatmul> swift_gmm_impl();

enum class SwiftOutput : uint8_t { kBF16, kF32, kSiluMulBF16 };

/// Pointers and sizes of ops/quant_matmul.h, as the kernel takes them.
struct SwiftGmmParams {
  void* c;                  // [R, N], or [R, N / 2] with silu_mul
  int64_t c_stride;         // elements between rows of c
  const void* a;            // [R, K] or [T, K]
  const float* a_scale;     // [R] or [T]; may be null
  const float* w_scale;     // [G, N]; may be null
  const float* bias;        // [N]; may be null
  const float* row_weight;  // [R]; may be null
  const int* offsets;       // [G + 1]; null: one group of all rows
  const int* row_ids;       // [R]; may be null
  bool gather;  // row r of c reads row row_ids[r] of a; else row r, though row_ids picks its a_scale
  int num_groups;
  int num_rows;             // R
  int n;                    // features of a group
  int k_bytes;              // of a row of a or w
  uint32_t a_stride_units;  // 16 bytes each, between rows of a
  int full_blocks;          // blocks of 128 bytes of K, the last one filled up with zeros
  bool half_block;          // a last one of at most 64 bytes
  bool interleave_groups;   // many groups at a time, so that some with few rows are always among them
  bool c_vectors;           // rows of bf16 c are 16-byte aligned, and their length is a multiple of that
  SwiftOutput output;
};

/// The part of c that a thread block computes at a time, a template instance of the kernel. Its choice moves
/// no bit of the result.
enum class SwiftTile : uint8_t {
  k64x16,  ///< features x rows
  k64x64,
  k256x16,
  k256x64,
  k256x128,
  k128x256,
};
struct SwiftTileShape {
  int features, rows;
};
constexpr SwiftTileShape shape_of(SwiftTile tile) {
  constexpr SwiftTileShape kShapes[] = {{64, 16}, {64, 64}, {256, 16}, {256, 64}, {256, 128}, {128, 256}};
  return kShapes[static_cast<int>(tile)];
}

/// The product by tiles of this kind, which swift_gmm_impl() chooses. c has elements.
void swift_gmm(ExecContext& ctx, const QuantMatmul& args, SwiftTile tile, std::span<std::byte> workspace);

inline constexpr int kSwiftMaxGroups = 512;

/// For the copy engine. An instruction takes it tens of cycles however small the box is, so contiguous rows
/// come in as few boxes as their number, rounded up to eight, has bits.
struct SwiftMaps {
  CUtensorMap w;     // [G * N, K] in boxes of [64, 128 bytes]
  CUtensorMap a[6];  // [R, K] in boxes of [8 << i, 128 bytes]; without row_ids
};

template <DType kType>
void launch_swift_gmm(const ExecContext& ctx, SwiftTile tile, const SwiftMaps& maps,
                      const SwiftGmmParams& params);
extern template void launch_swift_gmm<DType::kI8>(const ExecContext&, SwiftTile, const SwiftMaps&,
                                                  const SwiftGmmParams&);
extern template void launch_swift_gmm<DType::kFP8E4M3>(const ExecContext&, SwiftTile, const SwiftMaps&,
                                                       const SwiftGmmParams&);
extern template void launch_swift_gmm<DType::kBF16>(const ExecContext&, SwiftTile, const SwiftMaps&,
                                                    const SwiftGmmParams&);

}  // namespace moge::ops::cuda
