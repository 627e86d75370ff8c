// The CPU implementations of ops/permute.h, fastest first.
#pragma once
#include "ops/permute.h"

namespace moge::ops::cpu {

std::vector<Impl<PermuteFwd>> permute_fwd_impls();
std::vector<Impl<PermuteBwd>> permute_bwd_impls();

}  // namespace moge::ops::cpu
