// The CPU implementations of ops/combine.h, fastest first.
#pragma once
#include "ops/combine.h"

namespace moge::ops::cpu {

std::vector<Impl<CombineFwd>> combine_fwd_impls();
std::vector<Impl<CombineBwd>> combine_bwd_impls();

}  // namespace moge::ops::cpu
