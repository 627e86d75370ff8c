// The CPU implementations of ops/adamw.h, fastest first.
#pragma once
#include "ops/adamw.h"

namespace moge::ops::cpu {

std::vector<Impl<AdamW>> adamw_impls();
std::vector<Impl<SumSquares>> sum_squares_impls();

}  // namespace moge::ops::cpu
