// The CPU implementations of ops/residual_norm.h.
#pragma once
#include "ops/residual_norm.h"

namespace moge::ops::cpu {

std::vector<Impl<ResidualNorm>> residual_norm_impls();

}  // namespace moge::ops::cpu
