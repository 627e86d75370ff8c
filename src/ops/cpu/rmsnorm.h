// The CPU implementations of ops/rmsnorm.h, fastest first.
#pragma once
#include "ops/rmsnorm.h"

namespace moge::ops::cpu {

std::vector<Impl<RmsnormFwd>> rmsnorm_fwd_impls();
std::vector<Impl<RmsnormBwd>> rmsnorm_bwd_impls();

}  // namespace moge::ops::cpu
