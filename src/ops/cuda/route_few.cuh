// The router for up to eight tokens, which wait for the latency of each step; so the gate (1.3 MB in f32) is
// spread over sixteen multiprocessors, and loaded before the kernel waits for the one before it. A warp
// multiplies 16 experts by the tokens over one slice of the inner dimension and sends its sums to the first
// block, which chooses experts and builds the permutation, from a bit a token in each expert's word.
#pragma once
#include "ops/cuda/launch.cuh"
#include "ops/cuda/route_permutation.cuh"
#include "ops/cuda/router_steps.cuh"
#include "ops/cuda/sm90/cluster.cuh"

namespace moge::ops::cuda {

/// The slices of the logits that the first block receives, and its warps' keys.
struct Inbox {
  __device__ Inbox(float* memory, uint64_t* barrier_memory, int tokens, int E)
      : received(memory),
        keys(reinterpret_cast<int*>(received + kSlices * tokens * E)),
        barrier(shared_address(barrier_memory)),
        tokens(tokens),
        E(E) {}
  static int floats(int tokens, int E) { return (kSlices + 1) * tokens * E; }
  /// By a warp; then the cluster meets, before anyone sends.
  __device__ void open() const {
    const bool first = threadIdx.x % kWarp == 0;
    if (first) barrier_init(barrier, 1);
    if (first) fence_barrier_init();
    __syncwarp();  // racecheck takes another lane for the one that writes
    if (first) barrier_arrive_expect(barrier, kSlices * tokens * E * 4);
  }
  __device__ float& part(int slice, int token, int e) const {
    return received[(slice * tokens + token) * E + e];
  }
  __device__ void send_to_first(int slice, int token, int e, float value) const {
    send(cluster_address(shared_address(&part(slice, token, e)), 0), value, cluster_address(barrier, 0));
  }
  float* received;  // [kSlices][tokens][E]
  int* keys;        // [tokens][E]
  uint32_t barrier;
  int tokens, E;
};

inline constexpr int kFewRanks = 16;
inline constexpr int kRankSlices = kSlices / kFewRanks;
inline constexpr int kFewThreads = kExpertBlock / kExpertTile * kRankSlices * kWarp;

inline int few_shared_bytes(int T, int E) {
  return 4 * (Inbox::floats(T, E) + E);
}

template <class Gate, int kLaneExperts>
__global__ void __launch_bounds__(kFewThreads, 1) route_few_kernel(const RouteParams<Gate> p) {
  extern __shared__ __align__(16) float memory[];
  __shared__ __align__(8) uint64_t barrier_memory;
  const Inbox inbox(memory, &barrier_memory, p.T, p.E);
  auto* tokens_of = reinterpret_cast<uint32_t*>(inbox.keys + p.T * p.E);  // [E]
  const int rank = static_cast<int>(blockIdx.x), warp = threadIdx.x / kWarp;
  const int slice = rank * kRankSlices + warp / (kExpertBlock / kExpertTile);
  const int expert = warp % (kExpertBlock / kExpertTile) * kExpertTile;
  let_next_start();
  if (rank == 0 && warp == 0) inbox.open();
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
      if (token < p.T && e < p.E) inbox.send_to_first(slice, token, e, acc[i]);
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
    logits[i] = sum_of_parts<kSlices>([&](int slice) { return inbox.part(slice, token, e); });
  }
  const Picks<kLaneExperts> picks = select(p, experts, logits, inbox.keys + warp * p.E);
  write_picks(p, picks, token);
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i)
    if (picks.slot[i] >= 0) atomicOr(&tokens_of[experts.expert(i)], 1U << token);
  asm volatile("bar.sync 1, %0;" ::"r"(p.T * kWarp) : "memory");  // the warps that select
  permute_few(p, picks, token, tokens_of);
}

}  // namespace moge::ops::cuda
