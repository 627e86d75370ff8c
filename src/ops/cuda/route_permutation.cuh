// Where each expert's rows lie: its tokens in order, shared experts behind the routed ones.
#pragma once
#include "ops/cuda/launch.cuh"
#include "ops/cuda/router_steps.cuh"

namespace moge::ops::cuda {

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

inline constexpr int kPermuteThreads = 512;
inline constexpr int kPassChunks = 128;  ///< of an expert, a thread each

/// Block e: the rows of expert e, from the bits that the router left. The slots of a group hold that group's
/// experts, in every token.
template <class Gate>
__global__ void __launch_bounds__(kPermuteThreads) permute_kernel(const RouteParams<Gate> p) {
  __shared__ uint16_t tokens[kPassChunks * kWarp];  // of a pass, from its first token on
  let_next_start();
  wait_for_previous();
  const int e = blockIdx.x;
  if (e >= p.E) {
    place_shared(p, e - p.E);
    if (e == p.E + p.S - 1 && threadIdx.x == 0) p.offsets[p.E + p.S] = p.T * (p.K + p.S);
    return;
  }
  const int group = e * p.group_inverse >> 16, first_slot = group * p.group_picks;

  // Rows before the expert's: those of lower groups, and of lower experts in its own.
  int lower = 0;
  for (int i = group * p.group * p.chunks + threadIdx.x; i < e * p.chunks; i += blockDim.x)
    lower += __popc(p.chosen[i]);
  int row = p.T * first_slot + block_scan(lower).total;
  if (threadIdx.x == 0) p.offsets[e] = row;
  if (e == p.E - 1 && p.S == 0 && threadIdx.x == 0) p.offsets[p.E] = p.T * p.K;

  for (int first = 0; first < p.chunks; first += kPassChunks) {
    const int chunk = first + threadIdx.x;
    uint32_t bits = threadIdx.x < kPassChunks && chunk < p.chunks ? p.chosen[e * p.chunks + chunk] : 0;
    const Scan scan = block_scan(__popc(bits));
    for (int at = scan.before; bits; bits &= bits - 1, ++at)
      tokens[at] = static_cast<uint16_t>(threadIdx.x * kWarp + __ffs(bits) - 1);
    __syncthreads();
    for (int i = threadIdx.x; i < scan.total; i += blockDim.x) {
      const int token = first * kWarp + tokens[i];
      int slot = first_slot;
      if (p.group_picks > 1)
        while (p.topk_ids[token * p.ids_stride + slot] != e) ++slot;
      place(p, row + i, token, slot, p.topk_weights[token * p.weights_stride + slot]);
    }
    row += scan.total;  // the next scan's barriers keep `tokens` until all have read them
  }
}

}  // namespace moge::ops::cuda
