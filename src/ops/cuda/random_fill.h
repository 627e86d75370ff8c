// ops/random_fill.h on the GPU.
#pragma once
#include <vector>

#include "ops/random_fill.h"

namespace moge::ops::cuda {

std::vector<Impl<RandomFill>> random_fill_impls();

}  // namespace moge::ops::cuda
