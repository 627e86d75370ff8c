// The CUDA implementations of ops/rope.h.
#pragma once
#include "ops/rope.h"

namespace moge::ops::cuda {

std::vector<Impl<RopeTable>> rope_table_impls();

}  // namespace moge::ops::cuda
