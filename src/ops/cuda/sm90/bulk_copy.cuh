// The bulk copy engine without a tensor map: contiguous bytes to shared memory, completing on an mbarrier.
#pragma once
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

}  // namespace moge::ops::cuda
