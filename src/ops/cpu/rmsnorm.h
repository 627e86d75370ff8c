// The CPU implementations of ops/rmsnorm.h, fastest first.
#pragma once
#include "ops/cpu/vec/rmsnorm.h"
#include "ops/rmsnorm.h"

namespace moge::ops::cpu {

/// The definition, in double where it sums: other ops' references norm by it too. y may be x.
extern const vec::RmsnormKernels rmsnorm_ref;

std::vector<Impl<RmsnormFwd>> rmsnorm_fwd_impls();
std::vector<Impl<RmsnormBwd>> rmsnorm_bwd_impls();

}  // namespace moge::ops::cpu
