// The router of a serving step. Latency decides: at one token it reads 0.65 MB of gate and computes 0.7
// MFLOP.
//
// A cluster of eight blocks computes the logits of a tile of tokens on the tensor cores. Each warp multiplies
// 16 experts by the tile over one of 32 slices of the inner dimension; the 32 partial sums are added in
// order, through shared memory inside a block and distributed shared memory between blocks. The cut depends
// on D alone and a column of an mma on nothing but itself, so a token's logits are the same bits in every
// batch. The gate is loaded before the kernel waits for the one before it.
//
// An expert's place among its group is the number of experts above it, so all picks are found at once, one
// warp a token. Up to eight tokens, the first block then builds the permutation itself; for more, a second
// kernel does, one block an expert: it finds its tokens in order, so nothing is sorted.
#include "ops/cuda/moe_route.h"

#include <cooperative_groups.h>

#include <algorithm>
#include <utility>

#include "core/match.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/mma.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/vec.cuh"

namespace moge::ops::cuda {

namespace {

namespace cg = cooperative_groups;

constexpr int kCluster = 8;                     ///< blocks that share a tile's inner dimension
constexpr int kSubslices = 4;                   ///< of a block
constexpr int kSlices = kCluster * kSubslices;  ///< of the inner dimension
constexpr int kExpertBlock = 64;                ///< experts side by side: four warps of 16
constexpr int kThreads = kExpertBlock / 16 * kSubslices * kWarp;
constexpr int kUnit = 32;                         ///< inner elements of two mmas
constexpr int kTile = 8;                          ///< tokens of an mma
constexpr int kPartialStride = kExpertBlock + 4;  ///< floats; without bank conflicts
constexpr int kMaxExperts = 256;

template <class Gate>
struct Params {
  const BF16* x;
  const Gate* gate;
  const float* router_scale;
  int32_t* topk_ids;
  float* topk_weights;
  int32_t* offsets;
  int32_t* row_token;
  float* row_weight;
  int32_t* slot_row;
  int64_t x_stride, gate_stride;
  int ids_stride, weights_stride, slots_stride;
  int T, D, E, K, S;
  int group, group_picks;  ///< experts of a group, picks in each
  bool renormalize;
};

// ---- logits ----

/// Eight neighbouring gate elements of one row, as one (bf16) or three (f32, exactly: 24 bits are three times
/// eight) bf16 vectors.
__device__ __forceinline__ void load_gate(uint4 (&v)[1], const BF16* p) {
  v[0] = __ldg(reinterpret_cast<const uint4*>(p));
}
__device__ __forceinline__ void load_gate(uint4 (&v)[2], const float* p) {
  v[0] = __ldg(reinterpret_cast<const uint4*>(p));
  v[1] = __ldg(reinterpret_cast<const uint4*>(p) + 1);
}
__device__ __forceinline__ void gate_parts(uint32_t (&parts)[1][4], const uint4 (&v)[1]) {
  parts[0][0] = v[0].x, parts[0][1] = v[0].y, parts[0][2] = v[0].z, parts[0][3] = v[0].w;
}
__device__ __forceinline__ void gate_parts(uint32_t (&parts)[3][4], const uint4 (&v)[2]) {
  const uint32_t bits[kVec] = {v[0].x, v[0].y, v[0].z, v[0].w, v[1].x, v[1].y, v[1].z, v[1].w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float a = __uint_as_float(bits[2 * i]), b = __uint_as_float(bits[2 * i + 1]);
#pragma unroll
    for (int part = 2; part >= 0; --part) {  // the largest last
      parts[part][i] = pack<DType::kBF16>(a, b);
      a -= low_bf16(parts[part][i]);
      b -= high_bf16(parts[part][i]);
    }
  }
}

template <class Gate>
struct GateTraits;
template <>
struct GateTraits<BF16> {
  static constexpr int kLoads = 1, kParts = 1, kUnits = 5;
};
template <>
struct GateTraits<float> {
  static constexpr int kLoads = 2, kParts = 3, kUnits = 3;
};

/// acc[n] += the warp's 16 experts times token tile n, over the units begin .. end-1. `before_x` runs between
/// the first loads of the gate and the first of x. Lane 4g + t holds elements 8t .. 8t+7 of a unit: which of
/// them an mma calls its first is free as long as both operands agree.
template <class Gate, int kTiles, class BeforeX>
__device__ __forceinline__ void multiply(float (&acc)[kTiles][4], const Params<Gate>& p, int first_token,
                                         int first_expert, int begin, int end, const BeforeX& before_x) {
  using Traits = GateTraits<Gate>;
  constexpr int kUnits = kTiles > 1 ? 2 : Traits::kUnits;  // in flight; registers are few
  const int g = threadIdx.x % kWarp / 4, column = threadIdx.x % 4 * kVec;
  for (int first = begin; first < end || first == begin; first += kUnits) {
    uint4 gate[kUnits][2][Traits::kLoads] = {};
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int k = (first + u) * kUnit + column;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int expert = first_expert + g + 8 * half;
        if (first + u < end && k < p.D && expert < p.E)
          load_gate(gate[u][half], p.gate + expert * p.gate_stride + k);
      }
    }
    if (first == begin) before_x();
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int k = (first + u) * kUnit + column;
      uint32_t a[2][Traits::kParts][4];
      gate_parts(a[0], gate[u][0]);
      gate_parts(a[1], gate[u][1]);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const int token = first_token + n * kTile + g;
        uint4 x{};
        if (first + u < end && k < p.D && token < p.T)
          x = *reinterpret_cast<const uint4*>(p.x + token * p.x_stride + k);
#pragma unroll
        for (int part = 0; part < Traits::kParts; ++part) {
          mma<DType::kBF16>(acc[n], {a[0][part][0], a[1][part][0], a[0][part][1], a[1][part][1]}, x.x, x.y);
          mma<DType::kBF16>(acc[n], {a[0][part][2], a[1][part][2], a[0][part][3], a[1][part][3]}, x.z, x.w);
        }
      }
    }
  }
}

// ---- selection ----

/// Integers in the order of the floats, -0 = +0, NaN lowest.
__device__ __forceinline__ int order_key(float x) {
  if (isnan(x)) return INT_MIN;
  const int bits = __float_as_int(x + 0.0F);
  return bits ^ ((bits >> 31) & INT_MAX);
}

/// What a lane of the warp that routes a token knows beforehand of its experts lane, lane + 32, ...
template <int kLaneExperts>
struct LaneExperts {
  template <class Gate>
  __device__ explicit LaneExperts(const Params<Gate>& p) {
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) {
      const int e = expert(i), group = e / p.group;
      group_begin[i] = group * p.group;
      first_slot[i] = group * p.group_picks;
      scale[i] = p.router_scale && e < p.E ? __ldg(p.router_scale + e) : 1;
    }
  }
  __device__ static int expert(int i) {
    return i * kWarp + threadIdx.x % kWarp;
  }
  int group_begin[kLaneExperts];
  int first_slot[kLaneExperts];
  float scale[kLaneExperts];
};

/// The lane's experts that the token picks: their slots (-1: not picked) and routing weights.
template <int kLaneExperts>
struct Picks {
  int slot[kLaneExperts];
  float weight[kLaneExperts];
};

/// By a whole warp; `keys` [E] is its shared memory.
template <int kLaneExperts, class Gate>
__device__ __forceinline__ Picks<kLaneExperts> select(const Params<Gate>& p,
                                                      const LaneExperts<kLaneExperts>& experts,
                                                      const float (&logits)[kLaneExperts], int* keys) {
  Picks<kLaneExperts> picks;
  float(&score)[kLaneExperts] = picks.weight;
  float top = -INFINITY, sum = 0, kept = 0;
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const int e = experts.expert(i);
    if (e < p.E) keys[e] = order_key(logits[i]);
    if (e < p.E) top = fmaxf(top, logits[i]);
  }
  __syncwarp();
  top = warp_max(top);
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const int e = experts.expert(i);
    score[i] = e < p.E ? expf(logits[i] - top) : 0;
    sum += score[i];
    picks.slot[i] = -1;
    if (e >= p.E) continue;
    const int* others = keys + experts.group_begin[i];
    const int key = keys[e], own = e - experts.group_begin[i];
    int above = 0;
#pragma unroll 4
    for (int j = 0; j < p.group; ++j) above += others[j] > key || (others[j] == key && j < own);
    if (above < p.group_picks) picks.slot[i] = experts.first_slot[i] + above;
  }
  sum = warp_sum(sum);
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    score[i] /= sum;
    if (picks.slot[i] >= 0) kept += score[i];
  }
  kept = p.renormalize ? warp_sum(kept) : 1;
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) score[i] = score[i] / kept * experts.scale[i];
  return picks;
}

// ---- permutation ----

template <class Gate>
__device__ __forceinline__ void place(const Params<Gate>& p, int row, int token, int slot, float weight) {
  p.row_token[row] = token;
  p.row_weight[row] = weight;
  p.slot_row[token * p.slots_stride + slot] = row;
}

/// At most 32 tokens, a warp each: tokens_of[e] has the bit of each token that picked expert e.
template <int kLaneExperts, class Gate>
__device__ __forceinline__ void permute_few(const Params<Gate>& p, const Picks<kLaneExperts>& picks,
                                            int token, const uint32_t* tokens_of) {
  const int lane = threadIdx.x % kWarp;
  int begin = 0;  // of the rows of experts i * 32 ..
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const int e = i * kWarp + lane;
    const uint32_t tokens = e < p.E ? tokens_of[e] : 0;
    int end = __popc(tokens);
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const int below = __shfl_up_sync(kAllLanes, end, step);
      if (lane >= step) end += below;
    }
    const int first = begin + end - __popc(tokens);
    if (token == 0 && e < p.E) p.offsets[e] = first;
    if (picks.slot[i] >= 0)
      place(p, first + __popc(tokens & ((1U << token) - 1)), token, picks.slot[i], picks.weight[i]);
    begin += __shfl_sync(kAllLanes, end, kWarp - 1);
  }
  for (int s = lane; s <= p.S; s += kWarp) {
    const int first = p.T * (p.K + s);
    if (token == 0) p.offsets[p.E + s] = first;
    if (s < p.S) place(p, first + token, token, p.K + s, 1);
  }
}

/// Shared expert s: every token, in order.
template <class Gate>
__device__ __forceinline__ void place_shared(const Params<Gate>& p, int s) {
  const int first = p.T * (p.K + s);
  for (int t = threadIdx.x; t < p.T; t += blockDim.x) place(p, first + t, t, p.K + s, 1);
  if (threadIdx.x == 0) p.offsets[p.E + s] = first;
}

/// The sum over the block, and over the threads before this one.
struct Scan {
  int total, before;
};
__device__ __forceinline__ Scan block_scan(int own) {
  __shared__ int warp_totals[kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int inclusive = own;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int below = __shfl_up_sync(kAllLanes, inclusive, step);
    if (lane >= step) inclusive += below;
  }
  __syncthreads();  // the call before this one may still read
  if (lane == kWarp - 1) warp_totals[warp] = inclusive;
  __syncthreads();
  const unsigned of_lane = lane < blockDim.x / kWarp ? warp_totals[lane] : 0;
  return {static_cast<int>(__reduce_add_sync(kAllLanes, of_lane)),
          static_cast<int>(__reduce_add_sync(kAllLanes, lane < warp ? of_lane : 0)) + inclusive - own};
}

constexpr int kPermuteThreads = 512;
constexpr int kThreadTokens = 32;  ///< of a thread in one pass: bits of a word

/// Block e: the rows of expert e. The slots of a group hold that group's experts, in every token.
template <class Gate>
__global__ void __launch_bounds__(kPermuteThreads) permute_kernel(const Params<Gate> p) {
  let_next_start();
  wait_for_previous();
  const int e = blockIdx.x;
  if (e >= p.E) {
    place_shared(p, e - p.E);
    if (e == p.E + p.S - 1 && threadIdx.x == 0) p.offsets[p.E + p.S] = p.T * (p.K + p.S);
    return;
  }
  const int first_slot = e / p.group * p.group_picks, end_slot = first_slot + p.group_picks;

  // Rows before the expert's: those of lower groups, and of lower experts in its own.
  int lower = 0;
  for (int t = threadIdx.x; t < p.T; t += blockDim.x)
    for (int k = first_slot; k < end_slot; ++k) lower += p.topk_ids[t * p.ids_stride + k] < e;
  int row = p.T * first_slot + block_scan(lower).total;
  if (threadIdx.x == 0) p.offsets[e] = row;
  if (e == p.E - 1 && p.S == 0 && threadIdx.x == 0) p.offsets[p.E] = p.T * p.K;

  // Each thread looks through some neighbouring tokens; their rows follow those of the threads before.
  const int chunk =
      min(kThreadTokens, (p.T + static_cast<int>(blockDim.x) - 1) / static_cast<int>(blockDim.x));
  for (int start = 0; start < p.T; start += chunk * blockDim.x) {
    const int begin = start + threadIdx.x * chunk, tokens = min(chunk, p.T - begin);
    uint32_t picked = 0;
    for (int i = 0; i < tokens; ++i)
      for (int k = first_slot; k < end_slot; ++k)
        if (p.topk_ids[(begin + i) * p.ids_stride + k] == e) picked |= 1U << i;
    const Scan scan = block_scan(__popc(picked));
    for (int at = row + scan.before; picked; picked &= picked - 1, ++at) {
      const int token = begin + __ffs(picked) - 1;
      int k = first_slot;
      while (p.topk_ids[token * p.ids_stride + k] != e) ++k;
      place(p, at, token, k, p.topk_weights[token * p.weights_stride + k]);
    }
    row += scan.total;
  }
}

// ---- the kernel ----

/// [tokens of a tile] tiles of eight.
template <int kTiles>
int shared_bytes(int E) {
  constexpr int kWarpsThatSelect = kTile;
  return 4 * (kTile * kTiles * (kSubslices * kPartialStride + E) + (kWarpsThatSelect + 1) * E);
}

/// Tiles of kTiles * 8 tokens, a cluster each. kAll: one tile of eight, and the permutation too.
template <class Gate, int kTiles, bool kAll, int kLaneExperts>
__global__ void __launch_bounds__(kThreads, 1) route_kernel(const Params<Gate> p) {
  static_assert(!kAll || kTiles == 1);
  constexpr int kTokens = kTile * kTiles;
  extern __shared__ __align__(16) float shared[];
  float* partial = shared;                                            // [kSubslices][kTokens][kPartialStride]
  float* sums = partial + kSubslices * kTokens * kPartialStride;      // [kTokens][E]
  auto* keys = reinterpret_cast<int*>(sums + kTokens * p.E);          // [8][E]
  auto* tokens_of = reinterpret_cast<uint32_t*>(keys + kTile * p.E);  // [E]
  const cg::cluster_group cluster = cg::this_cluster();
  const int rank = static_cast<int>(cluster.block_rank());
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int subslice = warp / (kExpertBlock / 16), expert = warp % (kExpertBlock / 16) * 16;
  const int first_token = static_cast<int>(blockIdx.x) / kCluster * kTokens;
  const int units = (p.D + kUnit - 1) / kUnit, slice = rank * kSubslices + subslice;
  const int begin = slice * units / kSlices, end = (slice + 1) * units / kSlices;
  // The tokens of a tile are shared out among its blocks, or all routed by the first; a warp each.
  const bool selects = kAll ? rank == 0 && warp < min(kTile, p.T) : warp < kTiles;
  const int index = kAll ? warp : rank * kTiles + warp;
  let_next_start();
  if (kAll)
    for (int e = threadIdx.x; e < p.E; e += kThreads) tokens_of[e] = 0;

  for (int block = 0; block < p.E; block += kExpertBlock) {
    float acc[kTiles][4] = {};
    multiply(acc, p, first_token, block + expert, begin, end, [&] {
      if (block == 0) wait_for_previous();
    });
    if (block > 0) __syncthreads();
    float* to = partial + subslice * kTokens * kPartialStride + expert + lane / 4;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        to[(n * kTile + lane % 4 * 2 + i % 2) * kPartialStride + i / 2 * 8] = acc[n][i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kTokens * kExpertBlock; i += kThreads) {
      const int token = i / kExpertBlock, e = i % kExpertBlock;
      float sum = partial[token * kPartialStride + e];
#pragma unroll
      for (int s = 1; s < kSubslices; ++s) sum += partial[(s * kTokens + token) * kPartialStride + e];
      if (block + e < p.E) sums[token * p.E + block + e] = sum;
    }
  }
  const LaneExperts<kLaneExperts> experts(p);
  cluster.sync();

  const int token = first_token + index;
  float logits[kLaneExperts] = {};
  if (selects) {
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) {
      const int e = experts.expert(i);
      if (e >= p.E) break;
      float parts[kCluster];
#pragma unroll
      for (int r = 0; r < kCluster; ++r) parts[r] = cluster.map_shared_rank(sums, r)[index * p.E + e];
#pragma unroll
      for (const float part : parts) logits[i] += part;
    }
  }
  auto readers = cluster.barrier_arrive();  // a block's shared memory outlives those who read it
  if (selects && token < p.T) {
    const Picks<kLaneExperts> picks = select(p, experts, logits, keys + warp * p.E);
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) {
      if (picks.slot[i] < 0) continue;
      p.topk_ids[token * p.ids_stride + picks.slot[i]] = experts.expert(i);
      p.topk_weights[token * p.weights_stride + picks.slot[i]] = picks.weight[i];
      if (kAll) atomicOr(&tokens_of[experts.expert(i)], 1U << token);
    }
    if (kAll) {
      asm volatile("bar.sync 1, %0;" ::"r"(p.T * kWarp) : "memory");  // the warps that select
      permute_few(p, picks, token, tokens_of);
    }
  }
  cluster.barrier_wait(std::move(readers));
}

Refusal supports(const MoeRoute& a) {
  const int64_t E = a.gate.dim(0);
  if (E > kMaxExperts) return str(E, " experts: expected at most ", kMaxExperts);
  for (const Tensor* t : {&a.x, &a.gate})
    if (!rows_in_vecs(*t)) return str(t->str(), ": expected rows of aligned vectors of ", kVec);
  for (const Tensor* t : {&a.offsets, &a.row_token, &a.row_weight})
    if (!t->is_contiguous()) return str(t->str(), ": expected contiguous");
  return "";
}

template <int kTiles, bool kAll, class Gate>
void launch_route(ExecContext& ctx, const Params<Gate>& p) {
  constexpr int kTokens = kTile * kTiles;
  // Few experts a lane: short code, which is what a short kernel waits for.
  auto* kernel = p.E <= 2 * kWarp ? route_kernel<Gate, kTiles, kAll, 2>
                                  : route_kernel<Gate, kTiles, kAll, kMaxExperts / kWarp>;
  launch(ctx, "moe_route", kernel,
         {.grid = static_cast<unsigned>((p.T + kTokens - 1) / kTokens * kCluster),
          .block = kThreads,
          .shared_bytes = shared_bytes<kTiles>(p.E),
          .cluster = kCluster},
         p);
}

template <class Gate>
void run_as(ExecContext& ctx, const MoeRoute& a) {
  const int32_t K = narrow(a.topk_ids.dim(1), "moe_route: K");
  const Params<Gate> p{
      .x = a.x.ptr<BF16>(),
      .gate = a.gate.ptr<Gate>(),
      .router_scale = a.router_scale ? a.router_scale.ptr<float>() : nullptr,
      .topk_ids = a.topk_ids.ptr<int32_t>(),
      .topk_weights = a.topk_weights.ptr<float>(),
      .offsets = a.offsets.ptr<int32_t>(),
      .row_token = a.row_token.ptr<int32_t>(),
      .row_weight = a.row_weight.ptr<float>(),
      .slot_row = a.slot_row.ptr<int32_t>(),
      .x_stride = a.x.stride(0),
      .gate_stride = a.gate.stride(0),
      .ids_stride = narrow(a.topk_ids.stride(0), "moe_route: stride of topk_ids"),
      .weights_stride = narrow(a.topk_weights.stride(0), "moe_route: stride of topk_weights"),
      .slots_stride = narrow(a.slot_row.stride(0), "moe_route: stride of slot_row"),
      .T = narrow(a.x.dim(0), "moe_route: T"),
      .D = narrow(a.x.dim(1), "moe_route: D"),
      .E = narrow(a.gate.dim(0), "moe_route: E"),
      .K = K,
      .S = narrow(a.slot_row.dim(1) - K, "moe_route: S"),
      .group = narrow(a.gate.dim(0) / a.num_groups, "moe_route: experts of a group"),
      .group_picks = K / a.num_groups,
      .renormalize = a.renormalize};
  if (p.T > 0 && p.T <= kTile) return launch_route<1, true>(ctx, p);
  // Tiles as small as still give each multiprocessor no more than one block.
  const int small_tiles = ctx.backend->info().num_sms / kCluster * kTile;
  if (p.T > 4 * small_tiles)
    launch_route<8, false>(ctx, p);
  else if (p.T > small_tiles)
    launch_route<4, false>(ctx, p);
  else if (p.T > 0)
    launch_route<1, false>(ctx, p);
  const int threads = std::min(kPermuteThreads, std::max(kWarp, (p.T + kWarp - 1) / kWarp * kWarp));
  launch(ctx, "moe_route", permute_kernel<Gate>,
         {.grid = static_cast<unsigned>(p.E + p.S), .block = static_cast<unsigned>(threads)}, p);
}

void run(ExecContext& ctx, const MoeRoute& a, std::span<std::byte>) {
  a.gate.dtype == DType::kBF16 ? run_as<BF16>(ctx, a) : run_as<float>(ctx, a);
}

}  // namespace

std::vector<Impl<MoeRoute>> moe_route_impls() {
  return {{"cuda.cluster", DeviceKind::kCuda, supports, run}};
}

}  // namespace moge::ops::cuda
