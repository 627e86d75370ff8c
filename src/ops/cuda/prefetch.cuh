// Weights on their way into the L2 while a small kernel leaves the memory idle.
#pragma once
#include <cstdint>

#include "core/tensor.h"

namespace moge::ops::cuda {

struct L2Prefetch {
  const char* begin = nullptr;
  int64_t bytes = 0;
};

inline L2Prefetch l2_prefetch(const Tensor& t) {
  if (!t) return {};
  return {static_cast<const char*>(t.data), t.bytes() / 16 * 16};
}

/// By all threads of the grid, before they wait for earlier kernels: nobody writes weights.
__device__ __forceinline__ void prefetch_to_l2(const L2Prefetch& p) {
  constexpr int64_t kChunk = 16 * 1024;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kChunk; at < p.bytes;
       at += threads * kChunk) {
    const auto size = static_cast<uint32_t>(p.bytes - at < kChunk ? p.bytes - at : kChunk);
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p.begin + at), "r"(size) : "memory");
  }
}

}  // namespace moge::ops::cuda
