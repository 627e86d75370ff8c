// The CPU implementations of ops/silu_mul.h, fastest first.
#pragma once
#include "ops/silu_mul.h"

namespace moge::ops::cpu {

std::vector<Impl<SiluMulFwd>> silu_mul_fwd_impls();
std::vector<Impl<SiluMulBwd>> silu_mul_bwd_impls();

}  // namespace moge::ops::cpu
