// SwiftGMM, quant_matmul for Hopper: the kernel is in swift_gmm.cuh, why it is so in
// docs/kernels/swift_gmm.md.
#pragma once
#include <cuda.h>

#include <array>

#include "ops/quant_matmul.h"
#include "ops/tile_profile.h"

namespace moge::ops::cuda {

inline constexpr const char* kSwiftImpl = "cuda.swift_gmm";
/// "cuda.swift_gmm", which chooses its tile by the profile of the device (ops/tile_profile.h), then one
/// implementation for each tile. They take K of a multiple of 16 bytes, any N and rows, up to kSwiftMaxGroups
/// groups.
std::vector<Impl<QuantMatmul>> swift_gmm_impls();
/// Why they refuse, all for the same reasons; "" where they don't.
Refusal swift_gmm_refusal(const QuantMatmul& args);

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
  bool gather;              // each tile's rows come from row_ids[r] of a, not from the map of rows in order
  int num_groups;
  int num_rows;             // R
  int n;                    // features of a group
  int k_bytes;              // of a row of a or w
  uint32_t a_stride_units;  // 16 bytes each, between rows of a
  int full_blocks;          // blocks of 128 bytes of K, the last one filled up with zeros
  bool half_block;          // a last one of at most 64 bytes
  bool c_vectors;           // rows of bf16 c are 16-byte aligned, and their length is a multiple of that
  bool stores_boxes;        // tiles of 256 rows write c by the copy engine
  bool beside_previous;     // as in ops/quant_matmul.h
  bool many_results;        // of groups: weights do not leave the L2 before them
  bool takes_steps;         // pairs of blocks take their next tiles from a counter
  SwiftOutput output;
};

/// The part of c that is computed at a time: features x rows, a template instance of the kernel. Its choice
/// moves no bit of the result.
enum class SwiftTile : uint8_t {
  k64x16,
  k64x64,
  k64x128,
  k128x64,
  k128x128,
  k128x256,
  k256x256,
};
struct SwiftTileInfo {
  TileShape shape;
  int blocks;        ///< of a cluster: the features are divided among them, the rows shared
  const char* impl;  ///< its name in the op's table, for `moge tune` and the tests
};
inline constexpr std::array<SwiftTileInfo, 7> kSwiftTiles{{
    {{64, 16}, 1, "cuda.swift_gmm.64x16"},
    {{64, 64}, 1, "cuda.swift_gmm.64x64"},
    {{64, 128}, 1, "cuda.swift_gmm.64x128"},
    {{128, 64}, 1, "cuda.swift_gmm.128x64"},
    {{128, 128}, 1, "cuda.swift_gmm.128x128"},
    {{128, 256}, 1, "cuda.swift_gmm.128x256"},
    {{256, 256}, 2, "cuda.swift_gmm.256x256"},
}};
constexpr TileShape shape_of(SwiftTile tile) {
  return kSwiftTiles[static_cast<size_t>(tile)].shape;
}
constexpr int blocks_of(SwiftTile tile) {
  return kSwiftTiles[static_cast<size_t>(tile)].blocks;
}

inline constexpr int kSwiftMaxGroups = 512;

/// For the copy engine. An instruction takes it tens of cycles however small the box is, so contiguous rows
/// come in as few boxes as their number, rounded up to eight, has bits.
struct SwiftMaps {
  CUtensorMap w;     // [G * N, K] in boxes of [64, 128 bytes]
  CUtensorMap a[6];  // [R, K] in boxes of [8 << i, 128 bytes]: a, or what was gathered from it
  CUtensorMap c[7];  // [R, N] or [R, N / 2] in boxes of [1 << i, a warpgroup's features], with stores_boxes
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
