// The router of a serving step. Few tokens wait for the latency of each step; so the gate (0.65 MB) is spread
// over many multiprocessors, and loaded before the kernel waits for the one before it. Many tokens wait for
// the gate on its way from L2 to each multiprocessor.
//
//   few    up to eight tokens, by a cluster of sixteen blocks: each warp multiplies 16 experts by the tokens
//          over one slice of the inner dimension and sends its sums to the first block, which chooses experts
//          and builds the permutation, from a bit a token in each expert's word
//   many   8 or 32 tokens by a cluster of four blocks, each a quarter of the inner dimension through a ring
//   in
//          shared memory; each chooses for a quarter of the tokens. A second kernel builds the permutation,
//          one block an expert, which finds its tokens in order
//
// An expert's place among its group is the number of experts above it, so all picks of a token are found at
// once, by one warp, and nothing is sorted.
#include "ops/cuda/moe_route.h"

#include <algorithm>

#include "core/match.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/router_steps.cuh"
#include "ops/cuda/sm90/cluster.cuh"

namespace moge::ops::cuda {

namespace {

constexpr int kExpertBlock = 64;               ///< experts side by side: four warps
constexpr int kPartStride = kExpertBlock + 4;  ///< floats; without bank conflicts

// ---- permutation ----

template <class Gate>
__device__ __forceinline__ void place(const RouteParams<Gate>& p, int row, int token, int slot,
                                      float weight) {
  p.row_token[row] = token;
  p.row_weight[row] = weight;
  p.slot_row[token * p.slots_stride + slot] = row;
}

/// At most 32 tokens, a warp each: tokens_of[e] has the bit of each token that picked expert e.
template <int kLaneExperts, class Gate>
__device__ __forceinline__ void permute_few(const RouteParams<Gate>& p, const Picks<kLaneExperts>& picks,
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
__device__ __forceinline__ void place_shared(const RouteParams<Gate>& p, int s) {
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
__global__ void __launch_bounds__(kPermuteThreads) permute_kernel(const RouteParams<Gate> p) {
  let_next_start();
  wait_for_previous();
  const int e = blockIdx.x;
  if (e >= p.E) {
    place_shared(p, e - p.E);
    if (e == p.E + p.S - 1 && threadIdx.x == 0) p.offsets[p.E + p.S] = p.T * (p.K + p.S);
    return;
  }
  const int first_slot = (e * p.group_inverse >> 16) * p.group_picks, end_slot = first_slot + p.group_picks;

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

template <int kLaneExperts, class Gate>
__device__ __forceinline__ void write_picks(const RouteParams<Gate>& p, const Picks<kLaneExperts>& picks,
                                            int token) {
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    if (picks.slot[i] < 0) continue;
    p.topk_ids[token * p.ids_stride + picks.slot[i]] = LaneExperts<kLaneExperts>::expert(i);
    p.topk_weights[token * p.weights_stride + picks.slot[i]] = picks.weight[i];
  }
}

// ---- what blocks of a cluster send each other ----

/// The logits' parts that a block receives for the tokens that it owns, and its warps' keys.
struct Inbox {
  __device__ Inbox(float* memory, uint64_t* barrier_memory, int parts, int tokens, int E)
      : received(memory),
        keys(reinterpret_cast<int*>(received + parts * tokens * E)),
        barrier(shared_address(barrier_memory)),
        tokens(tokens),
        E(E) {}
  static int floats(int parts, int tokens, int E) { return (parts + 1) * tokens * E; }
  /// By one thread, for `expected` tokens; then the cluster meets, before anyone sends.
  __device__ void open(int parts, int expected) const {
    barrier_init(barrier, 1);
    fence_barrier_init();
    barrier_arrive_expect(barrier, parts * expected * E * 4);
  }
  __device__ float& part(int i, int token, int e) const { return received[(i * tokens + token) * E + e]; }
  __device__ void send_to(int rank, int i, int token, int e, float value) const {
    send(cluster_address(shared_address(&part(i, token, e)), rank), value, cluster_address(barrier, rank));
  }
  float* received;  // [parts][tokens][E]
  int* keys;        // [tokens][E]
  uint32_t barrier;
  int tokens, E;
};

// ---- few tokens ----

constexpr int kFewRanks = 16;
constexpr int kRankSlices = 2;
constexpr int kFewThreads = kExpertBlock / kExpertTile * kRankSlices * kWarp;

int few_shared_bytes(int T, int E) {
  return 4 * (Inbox::floats(kSlices, T, E) + E);
}

template <class Gate, int kLaneExperts>
__global__ void __launch_bounds__(kFewThreads, 1) route_few_kernel(const RouteParams<Gate> p) {
  extern __shared__ __align__(16) float memory[];
  __shared__ __align__(8) uint64_t barrier_memory;
  const Inbox inbox(memory, &barrier_memory, kSlices, p.T, p.E);
  auto* tokens_of = reinterpret_cast<uint32_t*>(inbox.keys + p.T * p.E);  // [E]
  const int rank = static_cast<int>(blockIdx.x), warp = threadIdx.x / kWarp;
  const int slice = rank * kRankSlices + warp / (kExpertBlock / kExpertTile);
  const int expert = warp % (kExpertBlock / kExpertTile) * kExpertTile;
  let_next_start();
  if (threadIdx.x == 0) inbox.open(kSlices, p.T);
  for (int e = threadIdx.x; e < p.E; e += kFewThreads) tokens_of[e] = 0;
  cluster_arrive();

  for (int block = 0; block < p.E; block += kExpertBlock) {
    float acc[4] = {};
    multiply(acc, p, block + expert, Slice(slice, p.D), [&] {
      if (block == 0) wait_for_previous();
    });
    if (block == 0) cluster_wait();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = acc_token(i), e = block + expert + acc_expert(i);
      if (token < p.T && e < p.E) inbox.send_to(0, slice, token, e, acc[i]);
    }
  }

  const int token = warp;
  if (rank > 0 || token >= p.T) return;
  const LaneExperts<kLaneExperts> experts(p);
  barrier_wait(inbox.barrier, 0);
  float logits[kLaneExperts] = {};
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const int e = experts.expert(i);
    if (e >= p.E) break;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      float quarter = 0;
#pragma unroll
      for (int r = 4 * q; r < 4 * q + 4; ++r) {
        const float of_rank = inbox.part(2 * r, token, e) + inbox.part(2 * r + 1, token, e);
        quarter = r == 4 * q ? of_rank : quarter + of_rank;
      }
      logits[i] = q == 0 ? quarter : logits[i] + quarter;
    }
  }
  const Picks<kLaneExperts> picks = select(p, experts, logits, inbox.keys + warp * p.E);
  write_picks(p, picks, token);
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i)
    if (picks.slot[i] >= 0) atomicOr(&tokens_of[experts.expert(i)], 1U << token);
  asm volatile("bar.sync 1, %0;" ::"r"(p.T * kWarp) : "memory");  // the warps that select
  permute_few(p, picks, token, tokens_of);
}

// ---- many tokens ----

constexpr int kQuarters = 4;  ///< blocks of a cluster
constexpr int kGroups = 4;    ///< of four warps in a block; each has a rank's slices
constexpr int kGroupThreads = kExpertBlock / kExpertTile * kWarp;
constexpr int kManyThreads = kGroups * kGroupThreads;

/// A group's ring of units: rows of 32 elements, 64 of the gate and then those of the tokens. What a warp
/// reads at once (two rows of 64 bytes for eight lanes) lies in different banks.
template <class Gate, int kTokens>
class UnitRing {
  static constexpr int kChunk = 16;  ///< bytes that one thread copies at once
  static constexpr int kGateChunks = kUnit * static_cast<int>(sizeof(Gate)) / kChunk;  // of a row
  static constexpr int kXChunks = kUnit * 2 / kChunk;

 public:
  static constexpr int kStages = sizeof(Gate) == 4 ? 4 : kTokens == kTokenTile ? 10 : 6;
  static constexpr int kStageBytes = kChunk * (kExpertBlock * kGateChunks + kTokens * kXChunks);
  static constexpr int kBytes = kStages * kStageBytes;

  __device__ UnitRing(std::byte* memory, const RouteParams<Gate>& p, int first_token)
      : memory_(memory), p_(p), first_token_(first_token), thread_(threadIdx.x % kGroupThreads) {}

  __device__ void load_gate_rows(int stage, int unit, int first_expert) const {
    for (int i = thread_; i < kExpertBlock * kGateChunks; i += kGroupThreads) {
      const int row = i / kGateChunks,
                k = unit * kUnit + i % kGateChunks * (kChunk / static_cast<int>(sizeof(Gate)));
      const bool inside = first_expert + row < p_.E && k < p_.D;
      copy(stage, i, inside ? p_.gate + (first_expert + row) * p_.gate_stride + k : p_.gate, inside);
    }
  }
  __device__ void load_x_rows(int stage, int unit) const {
    for (int i = thread_; i < kTokens * kXChunks; i += kGroupThreads) {
      const int row = i / kXChunks, k = unit * kUnit + i % kXChunks * (kChunk / 2);
      const bool inside = first_token_ + row < p_.T && k < p_.D;
      copy(stage, kExpertBlock * kGateChunks + i,
           inside ? p_.x + (first_token_ + row) * p_.x_stride + k : p_.x, inside);
    }
  }
  __device__ static void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  /// The oldest stage in flight has arrived, for the whole group.
  __device__ void wait() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    asm volatile("bar.sync %0, %1;" ::"r"(1 + static_cast<int>(threadIdx.x) / kGroupThreads),
                 "n"(kGroupThreads)
                 : "memory");
  }
  __device__ const uint4* gate_row(int stage, int row) const { return at(stage, row * kGateChunks); }
  __device__ const uint4* x_row(int stage, int row) const {
    return at(stage, kExpertBlock * kGateChunks + row * kXChunks);
  }

 private:
  __device__ uint4* at(int stage, int chunk) const {
    return reinterpret_cast<uint4*>(memory_ + stage * kStageBytes) + chunk;
  }
  __device__ void copy(int stage, int chunk, const void* from, bool inside) const {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(at(stage, chunk))),
                 "l"(from), "r"(inside ? kChunk : 0)
                 : "memory");
  }
  std::byte* memory_;
  const RouteParams<Gate>& p_;
  int first_token_, thread_;
};

template <class Gate, int kTiles>
int many_shared_bytes(int E) {
  constexpr int kTokens = kTokenTile * kTiles;
  return kGroups * UnitRing<Gate, kTokens>::kBytes +
         4 * (kGroups * kTokens * kPartStride + Inbox::floats(kQuarters, kTokens / kQuarters, E));
}

/// acc = 16 experts times the tokens over the units first .. first+count-1, which are `position` .. in the
/// ring; each stage that gets free takes the unit kStages - 1 further on, up to `last`.
template <class Gate, int kTiles>
__device__ __forceinline__ void multiply_ring(float (&acc)[kTiles][4],
                                              const UnitRing<Gate, kTokenTile * kTiles>& ring, int& position,
                                              int first, int count, int last, int first_expert,
                                              int warp_expert) {
  using Ring = UnitRing<Gate, kTokenTile * kTiles>;
  using Traits = GateTraits<Gate>;
  const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
#pragma unroll 1
  for (int unit = first; unit < first + count; ++unit, ++position) {
    ring.wait();
    const int stage = position % Ring::kStages, next = unit + Ring::kStages - 1;
    uint4 gate[2][Traits::kLoads];
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = 0; i < Traits::kLoads; ++i)
        gate[half][i] = ring.gate_row(stage, warp_expert + g + 8 * half)[t * Traits::kLoads + i];
    uint32_t a[2][Traits::kParts][4];
    gate_parts(a[0], gate[0]);
    gate_parts(a[1], gate[1]);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) multiply_unit(acc[n], a, ring.x_row(stage, n * kTokenTile + g)[t]);
    if (next < last) {
      const int free = (position + Ring::kStages - 1) % Ring::kStages;
      ring.load_gate_rows(free, next, first_expert);
      ring.load_x_rows(free, next);
    }
    Ring::commit();
  }
}

template <class Gate, int kTiles, int kLaneExperts>
__global__ void __launch_bounds__(kManyThreads, 1) route_many_kernel(const RouteParams<Gate> p) {
  constexpr int kTokens = kTokenTile * kTiles, kOwn = kTokens / kQuarters;
  using Ring = UnitRing<Gate, kTokens>;
  extern __shared__ __align__(16) std::byte bytes[];
  __shared__ __align__(8) uint64_t barrier_memory;
  auto* parts = reinterpret_cast<float*>(bytes + kGroups * Ring::kBytes);  // [kGroups][kTokens][kPartStride]
  const Inbox inbox(parts + kGroups * kTokens * kPartStride, &barrier_memory, kQuarters, kOwn, p.E);
  const int quarter = static_cast<int>(blockIdx.x) % kQuarters;
  const int first_token = static_cast<int>(blockIdx.x) / kQuarters * kTokens;
  const int warp = threadIdx.x / kWarp, group = threadIdx.x / kGroupThreads;
  const int warp_expert = warp % (kExpertBlock / kExpertTile) * kExpertTile;
  const int first_own = first_token + quarter * kOwn, num_own = max(0, min(kOwn, p.T - first_own));
  const Slice slices[2] = {{(quarter * kGroups + group) * 2, p.D},
                           {(quarter * kGroups + group) * 2 + 1, p.D}};
  const int first = slices[0].begin, last = slices[1].end;
  const Ring ring(bytes + group * Ring::kBytes, p, first_token);
  let_next_start();
  if (threadIdx.x == 0) inbox.open(kQuarters, num_own);
  cluster_arrive();

  for (int block = 0; block < p.E; block += kExpertBlock) {
    __syncthreads();  // the ring and the parts of the block of experts before are read
    for (int s = 0; s < Ring::kStages - 1; ++s)
      if (first + s < last) ring.load_gate_rows(s, first + s, block);
    if (block == 0) wait_for_previous();
    for (int s = 0; s < Ring::kStages - 1; ++s) {
      if (first + s < last) ring.load_x_rows(s, first + s);
      Ring::commit();
    }
    float sum[kTiles][4] = {};
    int position = 0;
#pragma unroll
    for (const Slice& slice : slices) {
      float acc[kTiles][4] = {};
      multiply_ring<Gate, kTiles>(acc, ring, position, slice.begin, slice.end - slice.begin, last, block,
                                  warp_expert);
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[n][i] += acc[n][i];
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        parts[(group * kTokens + n * kTokenTile + acc_token(i)) * kPartStride + warp_expert + acc_expert(i)] =
            sum[n][i];
    __syncthreads();
    if (block == 0) cluster_wait();
    for (int i = threadIdx.x; i < kTokens * kExpertBlock; i += kManyThreads) {
      const int token = i / kExpertBlock, e = i % kExpertBlock;
      if (first_token + token >= p.T || block + e >= p.E) continue;
      float of_quarter = parts[token * kPartStride + e];
#pragma unroll
      for (int r = 1; r < kGroups; ++r) of_quarter += parts[(r * kTokens + token) * kPartStride + e];
      inbox.send_to(token / kOwn, quarter, token % kOwn, block + e, of_quarter);
    }
  }

  if (warp >= num_own) return;
  const LaneExperts<kLaneExperts> experts(p);
  barrier_wait(inbox.barrier, 0);
  float logits[kLaneExperts] = {};
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const int e = experts.expert(i);
    if (e >= p.E) break;
    logits[i] = inbox.part(0, warp, e);
#pragma unroll
    for (int q = 1; q < kQuarters; ++q) logits[i] += inbox.part(q, warp, e);
  }
  write_picks(p, select(p, experts, logits, inbox.keys + warp * p.E), first_own + warp);
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

/// Few experts a lane: short code, which is what a short kernel waits for.
template <class Gate>
bool few_experts(const RouteParams<Gate>& p) {
  return p.E <= 2 * kWarp;
}
constexpr int kManyLaneExperts = kMaxExperts / kWarp;

template <class Gate>
void launch_few(ExecContext& ctx, const RouteParams<Gate>& p) {
  launch(ctx, "moe_route",
         few_experts(p) ? route_few_kernel<Gate, 2> : route_few_kernel<Gate, kManyLaneExperts>,
         {.grid = kFewRanks,
          .block = kFewThreads,
          .shared_bytes = few_shared_bytes(p.T, p.E),
          .cluster = kFewRanks},
         p);
}

template <int kTiles, class Gate>
void launch_many(ExecContext& ctx, const RouteParams<Gate>& p) {
  constexpr int kTokens = kTokenTile * kTiles;
  launch(
      ctx, "moe_route",
      few_experts(p) ? route_many_kernel<Gate, kTiles, 2> : route_many_kernel<Gate, kTiles, kManyLaneExperts>,
      {.grid = static_cast<unsigned>((p.T + kTokens - 1) / kTokens * kQuarters),
       .block = kManyThreads,
       .shared_bytes = many_shared_bytes<Gate, kTiles>(p.E),
       .cluster = kQuarters},
      p);
}

template <class Gate>
void run_as(ExecContext& ctx, const MoeRoute& a) {
  const int32_t K = narrow(a.topk_ids.dim(1), "moe_route: K");
  const RouteParams<Gate> p{
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
      .group_inverse = static_cast<int>(((1 << 16) * a.num_groups + a.gate.dim(0) - 1) / a.gate.dim(0)),
      .renormalize = a.renormalize};
  constexpr int kMaxShared = 200 * 1024;
  if (p.T > 0 && p.T <= kTokenTile && few_shared_bytes(p.T, p.E) <= kMaxShared) return launch_few(ctx, p);
  // The gate's traffic decides (2.1 TB/s from L2, however many clusters share it), so tiles are large.
  constexpr int kSmallTiles = 32;
  if (p.T > kSmallTiles)
    launch_many<4>(ctx, p);
  else if (p.T > 0)
    launch_many<1>(ctx, p);
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
