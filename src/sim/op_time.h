// The kernels of a step and the time of one: max(FLOPs / sustained FLOP/s, bytes / sustained bytes/s) + op_s,
// rows padded to the tile, tiles in whole waves over the machine's cores.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

namespace moge::sim {

/// In the order of a step. One name is one row of a breakdown, for all layers together.
enum class Op : uint8_t {
  kEmbedding,
  kAttentionNorm,  ///< RMSNorm, with the residual's addition and the quantisation of its output
  kAttentionAllGather,
  kQkv,
  kRope,
  kKvWrite,
  kRopeKvWrite,  ///< both as one kernel, where such a one was measured
  kAttention,    ///< of decoding rows
  kPrefillAttention,
  kAttentionQuant,  ///< of the attention's output
  kOProj,
  kAttentionReduce,  ///< all-reduce or reduce-scatter
  kTokenLayer,  ///< of one token, all between two attentions as one kernel, where such a one was measured
  kMlpNorm,
  kMlpAllGather,
  kGateUp,
  kSwiglu,
  kDown,
  kRouter,
  kSoftmax,
  kGroupTopk,
  kRouterScale,
  kSortExperts,
  kPermute,
  kMoeLayer,  ///< the calibrated surcharge of the routing kernels
  kMoeRoute,  ///< router to permutation as one kernel, where such a one was measured
  kExpertGateUp,
  kExpertSwiglu,
  kExpertQuant,  ///< of the experts' hidden rows, where the product before it has SwiGLU built in
  kExpertDown,
  kCombine,
  kSharedGateUp,
  kSharedSwiglu,
  kSharedDown,
  kMlpReduce,
  kPipelineSend,
  kFinalNorm,
  kLmHead,
  kLogitsGather,
  kSampling,  ///< where it was measured; else part of kStep
  kDraft,     ///< the speculative module's passes
  kStep,      ///< once a step
};
inline constexpr int kNumOps = static_cast<int>(Op::kStep) + 1;
const char* name_of(Op op);

/// What a kernel waits for most of its time.
enum class Bound : uint8_t { kCompute, kMemory, kVector, kNetwork, kOverhead };
const char* name_of(Bound bound);

/// Where an operator's time comes from.
enum class Basis : uint8_t { kFormula, kInterpolated, kMeasured };
const char* name_of(Basis basis);

/// One kernel's time without its fixed part. `count` of them run in a step.
struct OpCost {
  double flops = 0;
  double bytes = 0;  ///< of memory, or of the network
  double work_s = 0;
  Bound bound = Bound::kMemory;
  Basis basis = Basis::kFormula;  ///< measured times include the fixed part
};

/// a / b rounded up, for 0 <= a, 1 <= b, a / b < 2^63.
inline double ceil_div(double a, double b) {
  const double q = a / b;
  const auto whole = static_cast<double>(static_cast<int64_t>(q));
  return whole < q ? whole + 1 : whole;
}

/// How a machine cuts matmuls; units = 0: no quantisation.
struct TileShape {
  double units = 0;
  double row_step = 1;
  double tile_rows = 1;
  double tile_cols = 1;
};

/// Computed over useful FLOPs of a [padded_rows, cols] product of `col_tiles` column tiles: idle cores in the
/// last wave, rows that fill up the last tile. Libraries have kernels of several heights, so the best of four
/// counts. A product of fewer tiles than cores is split along its inner dimension instead. Times padded_rows
/// it never falls when rows are added, because it is so for each height.
inline double wave_factor(const TileShape& t, double padded_rows, double col_tiles) {
  constexpr double kHeights[] = {1, 0.875, 0.75, 0.5};
  double least = std::numeric_limits<double>::infinity();
  for (const double share : kHeights) {
    const double height = share * t.tile_rows;
    const double tiles = ceil_div(padded_rows, height) * col_tiles;
    if (tiles <= t.units) return 1;
    least = std::min(least, ceil_div(tiles, t.units) * height);
  }
  return std::max(1.0, least * t.units / (col_tiles * padded_rows));
}

}  // namespace moge::sim
