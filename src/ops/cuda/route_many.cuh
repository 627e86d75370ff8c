// The router for many tokens: a kernel that multiplies them by the gate and leaves parts of the logits, one
// that chooses experts (and one that lists their rows, route_permutation.cuh). The product waits for tokens
// and gate on their way to the multiprocessors and, with a gate in f32, for the tensor cores: a block has a
// tile of tokens, 64 experts and a part of the inner dimension, which the copy engine brings through a ring.
#pragma once
#include <cuda.h>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/route_permutation.cuh"
#include "ops/cuda/router_steps.cuh"
#include "ops/cuda/sm90/tma.cuh"

namespace moge::ops::cuda {

/// Tokens of a block, and how many blocks share the inner dimension: many where there are few tokens. (A
/// cluster for each tile would not need the parts in memory, but 128 blocks in clusters do not run at once on
/// 132 multiprocessors: those are not in groups of fours or eights.)
template <int kTokensOf, int kRanksOf>
struct RouteTile {
  static constexpr int kTokens = kTokensOf;
  static constexpr int kRanks = kRanksOf;
  static constexpr int kParts = kRanks == kSlices ? kSlices : kEighths;
  static constexpr int kPartSlices = kSlices / kParts;
  static constexpr int kRankParts = kParts / kRanks;
  static constexpr int kWarpTiles = kTokens / 2 / kTokenTile;
};

inline constexpr int kProductWarps = 2 * kExpertBlock / kExpertTile;  ///< and one that loads
inline constexpr int kProductThreads = (kProductWarps + 1) * kWarp;

/// A stage of the ring: two units of the tokens, then of 64 rows of the gate, in boxes with rows of 128
/// bytes.
template <class Gate, class Tile>
struct RouteStage {
  static constexpr int kUnits = 2;
  static constexpr int kBoxColumns = kSwizzleBytes / 2;  ///< the copy engine takes an f32 for two bf16
  static constexpr int kXBytes = Tile::kTokens * kSwizzleBytes;
  static constexpr int kGateBoxes = sizeof(Gate) / 2;
  static constexpr int kBoxBytes = kExpertBlock * kSwizzleBytes;
  static constexpr int kBytes = kXBytes + kGateBoxes * kBoxBytes;
  /// Small tiles have few units a block, and several blocks on a multiprocessor.
  static constexpr int kInRing = (Tile::kTokens == 32 ? 64 : 160) * 1024 / kBytes;
};

/// The row of a box that lane 4g + t reads for row g of an operand: of bf16, whose units are half a swizzled
/// row, eight lanes then read different banks; of f32 any two neighbours do.
template <class Element>
__device__ __forceinline__ int operand_row(int g) {
  return sizeof(Element) == 2 ? g / 2 + g % 2 * 4 : g;
}
__device__ __forceinline__ uint4 load_chunk(const std::byte* box, int row, int chunk) {
  return *reinterpret_cast<const uint4*>(box + row * kSwizzleBytes + (chunk ^ row % 8) * 16);
}

/// A warp's 16 experts and its tokens, both from these on in the block's boxes.
template <class Gate, class Tile>
struct WarpProduct {
  using Stage = RouteStage<Gate, Tile>;
  using Traits = GateTraits<Gate>;
  static constexpr int kTiles = Tile::kWarpTiles;

  /// acc += over unit `half` of a stage.
  __device__ void multiply(float (&acc)[kTiles][4], const std::byte* stage, int half) const {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
    const std::byte* gate_box = stage + Stage::kXBytes + (sizeof(Gate) == 4 ? half * Stage::kBoxBytes : 0);
    const int gate_chunk = sizeof(Gate) == 4 ? 2 * t : 4 * half + t;
    uint4 v[2][Traits::kLoads];
#pragma unroll
    for (int upper = 0; upper < 2; ++upper)
#pragma unroll
      for (int i = 0; i < Traits::kLoads; ++i)
        v[upper][i] = load_chunk(gate_box, expert + operand_row<Gate>(g) + 8 * upper, gate_chunk + i);
    uint4 x[kTiles];
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
      x[n] = load_chunk(stage, token + n * kTokenTile + operand_row<BF16>(g), 4 * half + t);
    if constexpr (sizeof(Gate) == 4)
      if (__all_sync(kAllLanes, holds_bf16(v[0]) && holds_bf16(v[1]))) {  // the other parts are 0
        uint32_t gate[2][1][4];
        upper_halves(gate[0][0], v[0]);
        upper_halves(gate[1][0], v[1]);
        return multiply(acc, gate, x);
      }
    uint32_t gate[2][Traits::kParts][4];
    gate_parts(gate[0], v[0]);
    gate_parts(gate[1], v[1]);
    multiply(acc, gate, x);
  }
  template <int kParts>
  __device__ static void multiply(float (&acc)[kTiles][4], const uint32_t (&gate)[2][kParts][4],
                                  const uint4 (&x)[kTiles]) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const auto& a = gate[0][part];
      const auto& b = gate[1][part];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) mma<DType::kBF16>(acc[n], {a[0], b[0], a[1], b[1]}, x[n].x, x[n].y);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) mma<DType::kBF16>(acc[n], {a[2], b[2], a[3], b[3]}, x[n].z, x[n].w);
    }
  }
  /// Of the block's tokens and experts, as in memory.
  __device__ void store(const RouteParams<Gate>& p, int part, int first_token, int first_expert,
                        const float (&sum)[kTiles][4]) const {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int to = first_token + token + n * kTokenTile + operand_row<BF16>(2 * t + i % 2);
        const int e = first_expert + expert + operand_row<Gate>(g) + i / 2 * 8;
        if (to < p.T && e < p.E) p.parts[(int64_t{part} * p.T + to) * p.E + e] = sum[n][i];
      }
  }
  int expert, token;
};

template <class Gate, class Tile>
__global__ void __launch_bounds__(kProductThreads, Tile::kTokens == 32 ? 3 : 1)
    route_product_kernel(const __grid_constant__ CUtensorMap x_map,
                         const __grid_constant__ CUtensorMap gate_map,
                         const __grid_constant__ RouteParams<Gate> p) {
  using Stage = RouteStage<Gate, Tile>;
  extern __shared__ __align__(1024) std::byte ring[];
  __shared__ __align__(8) uint64_t barriers[2 * Stage::kInRing];
  const auto full = [&](int slot) { return shared_address(barriers + slot); };
  const auto empty = [&](int slot) { return shared_address(barriers + Stage::kInRing + slot); };
  const int first_part = static_cast<int>(blockIdx.x) % Tile::kRanks * Tile::kRankParts;
  const int first_token = static_cast<int>(blockIdx.x) / Tile::kRanks * Tile::kTokens;
  const int first_expert = static_cast<int>(blockIdx.y) * kExpertBlock;
  const int first_slice = first_part * Tile::kPartSlices;
  const int first_unit = Slice(first_slice, p.D).begin;
  const int end_unit = Slice(first_slice + Tile::kRankParts * Tile::kPartSlices - 1, p.D).end;
  const int warp = threadIdx.x / kWarp;
  let_next_start();
  if (threadIdx.x == 0) {
    prefetch_map(gate_map);
    prefetch_map(x_map);
    for (int i = 0; i < Stage::kInRing; ++i) {
      barrier_init(full(i), 1);
      barrier_init(empty(i), kProductWarps);
    }
    fence_barrier_init();
  }
  __syncthreads();

  if (warp == kProductWarps) {
    if (threadIdx.x % kWarp > 0) return;
    const uint32_t memory = shared_address(ring);
    const auto load_gate = [&](int slot, int i) {
      barrier_arrive_expect(full(slot), Stage::kBytes);
      const int column = (first_unit + i * Stage::kUnits) * kUnit * Stage::kGateBoxes;
#pragma unroll
      for (int box = 0; box < Stage::kGateBoxes; ++box)
        load_box(memory + slot * Stage::kBytes + Stage::kXBytes + box * Stage::kBoxBytes, gate_map,
                 column + box * Stage::kBoxColumns, first_expert, full(slot), evict_last());
    };
    const auto load_x = [&](int slot, int i) {
      load_box(memory + slot * Stage::kBytes, x_map, (first_unit + i * Stage::kUnits) * kUnit, first_token,
               full(slot), evict_first());
    };
    const int stages = (end_unit - first_unit + Stage::kUnits - 1) / Stage::kUnits;
    const int ahead = min(Stage::kInRing, stages);
    for (int i = 0; i < ahead; ++i) load_gate(i, i);
    wait_for_previous();
    for (int i = 0; i < ahead; ++i) load_x(i, i);
    for (int i = ahead; i < stages; ++i) {
      const int slot = i % Stage::kInRing;
      barrier_wait(empty(slot), (i / Stage::kInRing + 1) % 2);
      load_gate(slot, i);
      load_x(slot, i);
    }
    return;
  }

  constexpr int kTiles = Tile::kWarpTiles;
  const WarpProduct<Gate, Tile> product{warp % (kExpertBlock / kExpertTile) * kExpertTile,
                                        warp / (kExpertBlock / kExpertTile) * kTiles * kTokenTile};
  wait_for_previous();  // the kernel before may still read the parts
  int slot = 0, half = 0;
  uint32_t parity = 0;
#pragma unroll 1
  for (int part = first_part; part < first_part + Tile::kRankParts; ++part) {
    float sum[kTiles][4] = {};
#pragma unroll 1
    for (int s = 0; s < Tile::kPartSlices; ++s) {
      const Slice slice(part * Tile::kPartSlices + s, p.D);
      float acc[kTiles][4] = {};
#pragma unroll 1
      for (int unit = slice.begin; unit < slice.end; ++unit) {
        if (half == 0) barrier_wait(full(slot), parity);
        product.multiply(acc, ring + slot * Stage::kBytes, half);
        if (++half < Stage::kUnits && unit + 1 < end_unit) continue;
        half = 0;
        __syncwarp();
        if (threadIdx.x % kWarp == 0) barrier_arrive(empty(slot));
        if (++slot == Stage::kInRing) slot = 0, parity ^= 1;
      }
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[n][i] = s == 0 ? acc[n][i] : sum[n][i] + acc[n][i];
    }
    product.store(p, part, first_token, first_expert, sum);
  }
}

/// Warps of a block that chooses, a token each: all where the block lists the experts' rows as well, else
/// the few whose bits are a byte, so that many multiprocessors read the parts of the logits.
template <bool kLastKernel>
inline constexpr int kSelectWarps = kLastKernel ? kWarp : 8;

/// A warp a token. With kLastKernel one block has all tokens, at most 32.
template <class Gate, int kParts, int kLaneExperts, bool kLastKernel>
__global__ void __launch_bounds__(kSelectWarps<kLastKernel>* kWarp)
    select_kernel(const __grid_constant__ RouteParams<Gate> p) {
  extern __shared__ int shared[];
  auto* tokens_of = reinterpret_cast<uint32_t*>(shared);  // [E]
  const int warp = threadIdx.x / kWarp;
  const int token = static_cast<int>(blockIdx.x) * kSelectWarps<kLastKernel> + warp;
  int* keys = shared + (1 + warp) * p.E;
  let_next_start();
  const LaneExperts<kLaneExperts> experts(p);
  for (int e = threadIdx.x; e < p.E; e += blockDim.x) tokens_of[e] = 0;
  __syncthreads();
  wait_for_previous();
  Picks<kLaneExperts> picks;
  if (token < p.T) {
    float logits[kLaneExperts] = {};
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) {
      const int e = experts.expert(i);
      if (e >= p.E) break;
      logits[i] =
          sum_of_parts<kParts>([&](int part) { return p.parts[(int64_t{part} * p.T + token) * p.E + e]; });
    }
    picks = select(p, experts, logits, keys);
    write_picks(p, picks, token);
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i)
      if (picks.slot[i] >= 0) atomicOr(&tokens_of[experts.expert(i)], 1U << warp);
  }
  __syncthreads();
  if constexpr (kLastKernel) {
    if (token < p.T) permute_few(p, picks, token, tokens_of);
  } else {
    auto* bytes = reinterpret_cast<uint8_t*>(p.chosen) + blockIdx.x;
    for (int e = threadIdx.x; e < p.E; e += blockDim.x)
      bytes[e * p.chunks * 4] = static_cast<uint8_t>(tokens_of[e]);
  }
}

}  // namespace moge::ops::cuda
