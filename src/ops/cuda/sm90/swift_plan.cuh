// What the parts of SwiftGMM's kernel share: the plan of a thread block's threads and shared memory, and the
// map from a tile's index to its place in c.
#pragma once
#include "ops/cuda/sm90/barrier.cuh"
#include "ops/cuda/sm90/swift_gmm.h"
#include "ops/cuda/sm90/tma.cuh"

namespace moge::ops::cuda::swift {

inline constexpr int kBlockFeatures = 64;  ///< of a warpgroup
inline constexpr int kBlockBytes = kBlockFeatures * kSwizzleBytes;
inline constexpr int kSteps = kSwizzleBytes / 32;  ///< products of a stage
inline constexpr int kSharedBytes = 227 * 1024;
inline constexpr int kAlignment = 1024;  ///< of a swizzled tile
/// Token tiles that are worked on side by side before the next weights: enough to read weights once while
/// tokens are few, few enough that tokens stay in L2 when they are many.
inline constexpr int kTokenTilesTogether = 16;

struct Tile {
  int group;         ///< below 0: there are no more tiles
  int row, rows;     ///< of c
  int feature;       ///< of the group
  bool alone;        ///< no other tile has the same weights
  bool shares_rows;  ///< with the other block of the cluster
};

/// What a row of sums is multiplied by: a_scale, and a_scale * row_weight.
struct RowFactors {
  float scale, weighted;
};

/// What the epilogue of a tile needs. Fetched ahead, so that no consumer waits for device memory.
template <int kFeatures, int kRows>
struct TileFactors {
  alignas(16) Tile tile;
  alignas(16) RowFactors rows[kRows];
  float w_scale[kFeatures];
  float bias[kFeatures];
};

/// Threads and shared memory of a thread block.
template <SwiftTile kTile>
struct Plan {
  static constexpr int kBlocks = blocks_of(kTile);  ///< of a cluster
  static constexpr int kFeatures = shape_of(kTile).features / kBlocks;
  static constexpr int kRows = shape_of(kTile).rows;
  /// Only the copy engine brings rows to two blocks, and it cannot gather.
  static constexpr bool kGathers = kBlocks == 1;
  static constexpr int kWarpgroups = kFeatures / kBlockFeatures;  ///< of consumers; one more produces
  static constexpr int kThreads = kWarpgroups * 128 + 128;
  /// Registers of a thread: what launch bounds give to all, moved from the producers to the others.
  static constexpr int kLaunchRegisters = 65536 / kThreads / 8 * 8;
  static constexpr int kProducerRegisters = kGathers ? 72 : 40;
  static constexpr int kConsumerRegisters = kGathers ? 216 : 232;
  static_assert(kWarpgroups == 1 || kProducerRegisters + kWarpgroups * kConsumerRegisters <=
                                        (kWarpgroups + 1) * kLaunchRegisters);

  using Factors = TileFactors<kFeatures, kRows>;
  static constexpr int kFactorSets = 2;
  /// Rows of c that a warpgroup transposes at a time.
  static constexpr int kStagedRows = kRows < 64 ? kRows : 64;
  static constexpr int kStagedBytes = kStagedRows * kBlockFeatures * 2;
  /// Results leave by the copy engine, beside the next tile's products: from there, and from the stage of the
  /// ring that was multiplied last.
  static constexpr bool kStoresBoxes = kRows == 256;
  static constexpr int kStageBytes = (kFeatures + kRows) * kSwizzleBytes;
  static constexpr int kStepBytes = 24;  ///< of what a pair's blocks tell each other of steps
  static constexpr int kMapBytes = (kSwiftMaxGroups + 4) * 4;
  static constexpr int kFixedBytes = kWarpgroups * kStagedBytes +
                                     kFactorSets * static_cast<int>(sizeof(Factors) + 24) + 2 * kMapBytes +
                                     kStepBytes;
  static constexpr int kStages = (kSharedBytes - kAlignment - kFixedBytes) / (kStageBytes + 16);
  static constexpr int kStagedAt = kStages * kStageBytes;
  static constexpr int kFactorsAt = kStagedAt + kWarpgroups * kStagedBytes;
  static constexpr int kStartAt = kFactorsAt + kFactorSets * static_cast<int>(sizeof(Factors));
  static constexpr int kRowStartAt = kStartAt + kMapBytes;
  // Barriers: a stage, or a set of factors, or its tile alone, has arrived (full) or has been used (empty).
  static constexpr int kFullAt = kRowStartAt + kMapBytes;
  static constexpr int kEmptyAt = kFullAt + kStages * 8;
  static constexpr int kFactorsFullAt = kEmptyAt + kStages * 8;
  static constexpr int kFactorsEmptyAt = kFactorsFullAt + kFactorSets * 8;
  static constexpr int kTileFullAt = kFactorsEmptyAt + kFactorSets * 8;
  // Two barriers of a pair, a step has been given or is wanted; the step.
  static constexpr int kStepGivenAt = kTileFullAt + kFactorSets * 8;
  static constexpr int kStepWantedAt = kStepGivenAt + 8;
  static constexpr int kGivenStepAt = kStepWantedAt + 8;
  static constexpr int kBytes = kStepGivenAt + kStepBytes + kAlignment;
};

/// A place in the ring, and how often it was passed.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// From the number of a step, in which each block of a cluster has a tile, to a block's tile. Token tiles of
/// the same weights follow each other, so that these are read once.
///
/// The blocks of a pair take neighbouring feature tiles and the same rows. An odd last feature tile they take
/// both, each with a token tile of its own.
template <class P>
struct TileMap {
  const int* start;      // [G + 1], shared memory: steps of the groups before
  const int* row_start;  // [G + 1], shared memory: offsets
  int num_groups;
  int feature_tiles;
  int rank;  ///< of the block in its cluster

  __device__ int shared_feature_tiles() const { return feature_tiles / P::kBlocks; }
  /// Of so many token tiles.
  __device__ int steps_of(int token_tiles) const {
    const int single = feature_tiles % P::kBlocks * ((token_tiles + P::kBlocks - 1) / P::kBlocks);
    return token_tiles * shared_feature_tiles() + single;
  }
  __device__ static int token_tiles_of(int rows) { return (rows + P::kRows - 1) / P::kRows; }
  __device__ int num_steps() const { return start[num_groups]; }

  /// All lanes of a warp.
  __device__ Tile at(int step) const {
    const int g = group_of(step), local = step - start[g], features = shared_feature_tiles();
    const int first_row = row_start[g], rows = row_start[g + 1] - first_row, tiles = token_tiles_of(rows);
    const bool shares_rows = P::kBlocks > 1 && local < tiles * features;
    int feature_tile = features, token_tile = (local - tiles * features) * P::kBlocks + rank;
    if (local < tiles * features) {
      const int batch = local / (kTokenTilesTogether * features);
      const int in_batch = local - batch * kTokenTilesTogether * features;
      const int together = min(kTokenTilesTogether, tiles - batch * kTokenTilesTogether);
      feature_tile = in_batch / together;
      token_tile = batch * kTokenTilesTogether + in_batch % together;
    }
    if (token_tile >= tiles) return {};
    // near equal tiles: a full one and a remainder of a few rows would take longer
    const int height = ((rows + tiles - 1) / tiles + 7) / 8 * 8;
    return {.group = g,
            .row = first_row + token_tile * height,
            .rows = min(height, rows - token_tile * height),
            .feature = (feature_tile * P::kBlocks + (shares_rows ? rank : 0)) * P::kFeatures,
            .alone = tiles == 1,
            .shares_rows = shares_rows};
  }

 private:
  __device__ int group_of(int step) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int g = 0;; g += 32) {
      const bool before = g + lane < num_groups && start[g + lane + 1] <= step;
      const int count = __popc(__ballot_sync(~0U, before));
      if (count < 32) return g + count;
    }
  }
};

/// Fills TileMap's arrays. All threads.
template <class P>
__device__ void count_tiles(const SwiftGmmParams& p, const TileMap<P>& map, int* start, int* row_start) {
  for (int g = static_cast<int>(threadIdx.x); g <= p.num_groups; g += P::kThreads)
    row_start[g] = p.offsets ? p.offsets[g] : g * p.num_rows;
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x);
    int total = 0;
    for (int begin = 0; begin < p.num_groups; begin += 32) {
      const int g = begin + lane;
      int sum = g < p.num_groups ? map.steps_of(map.token_tiles_of(row_start[g + 1] - row_start[g])) : 0;
      for (int distance = 1; distance < 32; distance *= 2) {
        const int lower = __shfl_up_sync(~0U, sum, distance);
        if (lane >= distance) sum += lower;
      }
      if (g < p.num_groups) start[g + 1] = total + sum;
      total += __shfl_sync(~0U, sum, 31);
    }
    if (lane == 0) start[0] = 0;
  }
  __syncthreads();
}

}  // namespace moge::ops::cuda::swift
