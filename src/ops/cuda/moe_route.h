// ops/moe_route.h on the GPU.
#pragma once
#include <vector>

#include "ops/moe_route.h"

namespace moge::ops::cuda {

std::vector<Impl<MoeRoute>> moe_route_impls();

}  // namespace moge::ops::cuda
