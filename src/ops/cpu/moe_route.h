// The CPU implementations of ops/moe_route.h.
#pragma once
#include "ops/moe_route.h"

namespace moge::ops::cpu {

std::vector<Impl<MoeRoute>> moe_route_impls();

}  // namespace moge::ops::cpu
