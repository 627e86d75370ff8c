// The CPU implementation of ops/random_fill.h.
#pragma once
#include "ops/random_fill.h"

namespace moge::ops::cpu {

std::vector<Impl<RandomFill>> random_fill_impls();

}  // namespace moge::ops::cpu
