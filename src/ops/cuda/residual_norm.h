// ops/residual_norm.h on the GPU.
#pragma once
#include <vector>

#include "ops/residual_norm.h"

namespace moge::ops::cuda {

std::vector<Impl<ResidualNorm>> residual_norm_impls();

}  // namespace moge::ops::cuda
