// More of the bulk copy engine (tma.cuh): contiguous bytes, and boxes of three dimensions.
#pragma once
#include <cuda.h>

#include "ops/cuda/sm90/barrier.cuh"

namespace moge::ops::cuda {

/// Both addresses and `bytes` are multiples of 16.
__device__ __forceinline__ void load_bytes(uint32_t shared, const void* global, uint32_t bytes,
                                           uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(barrier)
      : "memory");
}

/// The same with an L2 policy (tma.cuh).
__device__ __forceinline__ void load_bytes(uint32_t shared, const void* global, uint32_t bytes,
                                           uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], %4;" ::"r"(shared),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

/// A box of a three-dimensional tensor map (tensor_map.h, heads_map) at (element x, y, z).
__device__ __forceinline__ void load_box_3d(uint32_t shared, const CUtensorMap& map, int x, int y, int z,
                                            uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(shared),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z)
      : "memory");
}

}  // namespace moge::ops::cuda
