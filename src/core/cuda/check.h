// CUDA's error codes as exceptions.
#pragma once
#include <cuda_runtime_api.h>

#include "core/backend.h"

namespace moge::cuda {

/// Throws DeviceError ("quant_matmul: launch of 132x1x1 blocks of 384 threads: invalid configuration
/// argument (cudaErrorInvalidConfiguration)"), to which run_impl() adds the tensors.
template <class... Args>
void check_cuda(cudaError_t error, const Args&... where) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error of this call must not be blamed on the next
  throw DeviceError(str(where..., ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")"));
}

}  // namespace moge::cuda
