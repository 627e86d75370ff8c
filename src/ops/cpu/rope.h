// The CPU implementations of ops/rope.h, fastest first.
#pragma once
#include "ops/cpu/vec/rope.h"
#include "ops/rope.h"

namespace moge::ops::cpu {

/// The definition; other ops' references turn by it too.
extern const vec::RopeKernels rope_ref;

std::vector<Impl<RopeTable>> rope_table_impls();
std::vector<Impl<Rope>> rope_impls();

}  // namespace moge::ops::cpu
