// The bulk tensor copy engine: boxes of a matrix in device memory to shared memory, 128-byte swizzled,
// completing on an mbarrier.
#pragma once
#include <cuda.h>

#include "ops/cuda/sm90/barrier.cuh"

namespace moge::ops::cuda {

/// Bytes of a row of a box: the span of the swizzle.
inline constexpr int kSwizzleBytes = 128;

/// Copies the box at (element x, row y). Elements outside the matrix arrive as zeros and count as bytes.
__device__ __forceinline__ void load_box(uint32_t shared, const CUtensorMap& map, int x, int y,
                                         uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "l"(policy)
      : "memory");
}

/// The same to this place in the shared memory of every block of the cluster whose bit in `blocks` is set,
/// each completing on its own barrier.
__device__ __forceinline__ void load_box_to_blocks(uint32_t shared, const CUtensorMap& map, int x, int y,
                                                   uint32_t barrier, uint16_t blocks, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(shared),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "h"(blocks), "l"(policy)
      : "memory");
}

/// Writes a box from shared memory, as one of the group that end_group_of_stores() ends; outside the matrix
/// nothing is written. What the threads wrote there needs fence_async_proxy() before.
__device__ __forceinline__ void store_box(const CUtensorMap& map, int x, int y, uint32_t shared) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map),
               "r"(x), "r"(y), "r"(shared)
               : "memory");
}
__device__ __forceinline__ void end_group_of_stores() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Until all but the thread's last kPending groups of stores have read shared memory.
template <int kPending>
__device__ __forceinline__ void wait_for_reads_of_stores() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// Copies 16 bytes, or zeros, as this thread's own asynchronous copy.
__device__ __forceinline__ void load_16(uint32_t shared, const void* global, bool zeros) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared),
               "l"(__cvta_generic_to_global(global)), "r"(zeros ? 0 : 16));
}
/// The same of 4 bytes.
__device__ __forceinline__ void load_4(uint32_t shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared),
               "l"(__cvta_generic_to_global(global)));
}
/// Arrives when all copies that this thread has begun are done. Unlike the copy engine's, they need
/// fence_async_proxy() before the tensor core reads them.
__device__ __forceinline__ void barrier_arrive_after_loads(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
/// Orders ordinary accesses to shared memory before those of the tensor core and the copy engine.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// L2 policies: data that is read once must not push out data that is read by every block.
__device__ __forceinline__ uint64_t evict_first() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint64_t evict_unchanged() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_unchanged.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint64_t evict_normal() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint64_t evict_last() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

}  // namespace moge::ops::cuda
