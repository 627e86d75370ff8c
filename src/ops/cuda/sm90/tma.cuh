// The bulk tensor copy engine: boxes of a matrix in device memory to shared memory, 128-byte swizzled, completing
// on an mbarrier.
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

__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// L2 policies: data that is read once must not push out data that is read by every block.
__device__ __forceinline__ uint64_t evict_first() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint64_t evict_last() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

}  // namespace moge::ops::cuda
