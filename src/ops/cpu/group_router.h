// The CPU implementations of ops/group_router.h, fastest first.
#pragma once
#include "ops/group_router.h"

namespace moge::ops::cpu {

std::vector<Impl<GroupRouterFwd>> group_router_fwd_impls();
std::vector<Impl<GroupRouterBwd>> group_router_bwd_impls();

}  // namespace moge::ops::cpu
