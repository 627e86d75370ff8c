// The CPU implementations of ops/rope.h, fastest first.
#pragma once
#include "ops/rope.h"

namespace moge::ops::cpu {

std::vector<Impl<RopeTable>> rope_table_impls();
std::vector<Impl<Rope>> rope_impls();

}  // namespace moge::ops::cpu
