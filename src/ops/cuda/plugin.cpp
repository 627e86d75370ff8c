// What core/backend.cpp opens: libmoge_cuda.so's one exported function.
#include "core/cuda/backend.h"
#include "ops/cuda/register.h"

/// The backend of GPU `index`, which lives as long as the process, or null and why not.
extern "C" __attribute__((visibility("default"))) moge::Backend* moge_cuda_open(int index,
                                                                                std::string* refusal) {
  try {
    static const std::unique_ptr<moge::Backend> backend = moge::cuda::open_backend(index);
    moge::ops::cuda::register_ops();
    return backend.get();
  } catch (const std::exception& e) {
    *refusal = e.what();
    return nullptr;
  }
}
