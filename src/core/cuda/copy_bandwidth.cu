// The ceiling that every bandwidth-bound kernel is compared with: a plain copy of more than the L2 holds.
// (The copy engine behind cudaMemcpy is slower: 2.4 against 3.0 TB/s on an H100.)
#include "core/cuda/copy_bandwidth.h"

#include <algorithm>

#include "core/cuda/check.h"

namespace moge::cuda {

namespace {

constexpr int kThreads = 512;
constexpr int kUnroll = 4;

__global__ void copy_kernel(uint4* to, const uint4* from, int64_t count) {
  const int64_t base = static_cast<int64_t>(blockIdx.x) * kThreads * kUnroll + threadIdx.x;
  uint4 v[kUnroll];
#pragma unroll
  for (int i = 0; i < kUnroll; ++i)
    if (base + i * kThreads < count) v[i] = __ldcs(from + base + i * kThreads);
#pragma unroll
  for (int i = 0; i < kUnroll; ++i)
    if (base + i * kThreads < count) __stcs(to + base + i * kThreads, v[i]);
}

}  // namespace

double copy_bandwidth(void* to, const void* from, int64_t bytes, cudaStream_t stream) {
  const int64_t count = bytes / static_cast<int64_t>(sizeof(uint4));
  const auto blocks = static_cast<unsigned>((count + kThreads * kUnroll - 1) / (kThreads * kUnroll));
  cudaEvent_t begin = nullptr, end = nullptr;
  check_cuda(cudaEventCreate(&begin), "copy bandwidth");
  check_cuda(cudaEventCreate(&end), "copy bandwidth");
  float best = 0;
  for (int i = 0; i < 10; ++i) {
    check_cuda(cudaEventRecord(begin, stream), "copy bandwidth");
    copy_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<uint4*>(to), static_cast<const uint4*>(from),
                                                 count);
    check_cuda(cudaGetLastError(), "copy bandwidth");
    check_cuda(cudaEventRecord(end, stream), "copy bandwidth");
    check_cuda(cudaEventSynchronize(end), "copy bandwidth");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end), "copy bandwidth");
    best = i == 0 ? milliseconds : std::min(best, milliseconds);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return 2 * static_cast<double>(bytes) / (static_cast<double>(best) * 1e-3);
}

}  // namespace moge::cuda
