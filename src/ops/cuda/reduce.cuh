// Sums and maxima over a warp and a block, in an order that is fixed by the number of threads.
#pragma once
#include <cuda_runtime.h>

namespace moge::ops::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

/// Every lane gets the result.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

/// Both at once, for one barrier. Every thread of a block of whole warps calls it, once a kernel.
struct SumAndMax {
  float sum, max;
};
__device__ __forceinline__ SumAndMax block_sum_and_max(SumAndMax x) {
  __shared__ SumAndMax partial[kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  x = {warp_sum(x.sum), warp_max(x.max)};
  if (lane == 0) partial[warp] = x;
  __syncthreads();
  x = lane < blockDim.x / kWarp ? partial[lane] : SumAndMax{0, 0};
  return {warp_sum(x.sum), warp_max(x.max)};
}

}  // namespace moge::ops::cuda
