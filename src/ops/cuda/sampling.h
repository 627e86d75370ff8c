// ops/sampling.h on the GPU.
#pragma once
#include <vector>

#include "ops/sampling.h"

namespace moge::ops::cuda {

std::vector<Impl<Sampling>> sampling_impls();

}  // namespace moge::ops::cuda
