// The warp of a token layer's block that routes, and what else it has time for.
#pragma once
#include "ops/cuda/launch.cuh"
#include "ops/cuda/sm90/token_layer.cuh"
#include "ops/cuda/vec.cuh"

namespace moge::ops::cuda::token {

/// What the shared expert's products of the block's features need. By the warp that routes, which has time;
/// the others see it when they have seen `routed`.
__device__ inline void prepare_shared(const Params& p, const Share& own, uint8_t* memory) {
  if (p.SF == 0) return;
  const int lane = threadIdx.x % kWarp;
  if (lane == 0) reinterpret_cast<float*>(memory + p.at.weight)[p.K] = 1;
  for (int f = lane; f < own.size(); f += kWarp) {
    reinterpret_cast<int*>(memory + p.at.shared_sum)[f] = 0;
    reinterpret_cast<float*>(memory + p.at.shared_scale)[f] = p.shared_down_scale[own.begin + f];
  }
}

/// What a block's warps share, by the one that routes, while the others begin to read.
__device__ inline void begin_block(const Params& p, uint8_t* memory, Chunks* chunks) {
  const uint32_t shared = shared_address(memory);
  const int lane = threadIdx.x % kWarp;
  if (lane == 0) {
    barrier_init(shared + p.at.routed, kWarp);
    barrier_init(shared + p.at.met, p.warps * kWarp);
    barrier_init(shared + p.at.normed_there, p.warps * kWarp);
    *chunks = Chunks(p);
  }
  if (lane < p.slots) reinterpret_cast<int*>(memory + p.at.h_max)[lane] = 0;
}

/// Into the L2: what comes from device memory later waits there behind the weights.
__device__ inline void fetch_norms(const Params& p) {
  constexpr int kLine = 32;  // floats
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) % kWarp * kLine; i < p.D; i += kWarp * kLine) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p.norm + i));
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p.next_norm + i));
  }
}

/// The warp that routes: its share of the logits, and the residual stream of the block's features, then, as
/// every block's does, all of the choice.
__device__ inline void route(const Params& p, const Share& own, uint8_t* memory) {
  prepare_shared(p, own, memory);
  const Layout& at = p.at;
  const int lane = threadIdx.x % kWarp;
  RouteParams<float> r = p.route;
  r.x = reinterpret_cast<const BF16*>(memory + at.normed);
  const int tiles = (p.E + kExpertTile - 1) / kExpertTile;
  bool begun = false;
  const auto begin = [&] {
    if (begun) return;
    wait_for_previous();
    barrier_wait(shared_address(memory) + at.normed_there, 0);
    begun = true;
  };
  // Twice, since instructions come slowly the first time in a launch: while the row is awaited, with any
  // numbers.
#pragma unroll 1
  for (bool rehearses = true;; rehearses = false) {
    for (int task = blockIdx.x; task < kSlices * tiles; task += gridDim.x) {
      const int slice = task / tiles, first = task % tiles * kExpertTile;
      float acc[4] = {};
      r.T = rehearses ? 0 : 1;
      multiply(acc, r, first, Slice(slice, p.D), [&] {
        if (!rehearses) begin();
      });
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int e = first + acc_expert(i);
        if (!rehearses && acc_token(i) == 0 && e < p.E) tell(parts.bits[slice][e], acc[i]);
      }
    }
    if (!rehearses) {
      begin();
      for (int f = own.begin + lane; f < own.end; f += kWarp) {
        const float delta = low_bf16(__ldcg(reinterpret_cast<const uint16_t*>(p.delta) + f));
        reinterpret_cast<float*>(memory + at.x)[f - own.begin] = __ldcg(p.x + f) + delta;
      }
    }
    constexpr int kLaneExperts = kMaxRouted / kWarp;
    const LaneExperts<kLaneExperts> experts(r);
    uint32_t bits[kLaneExperts][kSlices];
    bool there = true;
    do {
      there = true;
#pragma unroll
      for (int i = 0; i < kLaneExperts; ++i)
#pragma unroll
        for (int slice = 0; slice < kSlices; ++slice) {
          const int e = experts.expert(i);
          bits[i][slice] = e < p.E ? look(parts.bits[slice][e]) : ~0U;
        }
#pragma unroll
      for (int i = 0; i < kLaneExperts; ++i)
#pragma unroll
        for (int slice = 0; slice < kSlices; ++slice) there = there && bits[i][slice] != 0;
    } while (!rehearses && !__all_sync(kAllLanes, there));
    float logits[kLaneExperts];
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i)
      logits[i] = sum_of_parts<kSlices>([&](int slice) { return __uint_as_float(~bits[i][slice]); });
    const Picks<kLaneExperts> picks = select(r, experts, logits, reinterpret_cast<int*>(memory + at.keys));
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) {
      if (picks.slot[i] < 0) continue;
      reinterpret_cast<int*>(memory + at.expert)[picks.slot[i]] = experts.expert(i);
      reinterpret_cast<float*>(memory + at.weight)[picks.slot[i]] = picks.weight[i];
    }
    if (!rehearses) break;
  }
  barrier_arrive(shared_address(memory) + at.routed);  // all lanes: racecheck takes no lane for another
}

}  // namespace moge::ops::cuda::token
