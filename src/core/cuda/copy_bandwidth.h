#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace moge::cuda {

/// Bytes read and written per second, the best of several copies of `bytes` (a multiple of 16, well above the
/// L2).
double copy_bandwidth(void* to, const void* from, int64_t bytes, cudaStream_t stream);

}  // namespace moge::cuda
