// What blocks of a cluster tell each other (PTX ISA, "barrier.cluster", "mapa", "st.async"). A store that an
// mbarrier of the receiver counts takes some 0.2 us; meeting at a barrier of the cluster 0.6.
#pragma once
#include "ops/cuda/sm90/barrier.cuh"

namespace moge::ops::cuda {

/// Every thread of every block; between the two the others may lag behind.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// The address that the block of this rank has for what lies at `shared` in ours.
__device__ __forceinline__ uint32_t cluster_address(uint32_t shared, int rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared), "r"(rank));
  return address;
}

/// Arrives at the barrier of any block of the cluster, by its cluster_address. It tells that products have
/// read something, not that this thread has written something: release.cluster would first wait for all its
/// stores to reach the L2, 0.8 us.
__device__ __forceinline__ void barrier_arrive_in_cluster(uint32_t address) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(address) : "memory");
}

/// Stores to another block's shared memory; its barrier (which expects them) counts the bytes when they are
/// there. The receiver has to have started: it has met this block since.
__device__ __forceinline__ void send(uint32_t address, float value, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(address),
      "r"(__float_as_uint(value)), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void send(uint32_t address, float2 value, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::"r"(
          address),
      "r"(__float_as_uint(value.x)), "r"(__float_as_uint(value.y)), "r"(barrier)
      : "memory");
}

}  // namespace moge::ops::cuda
