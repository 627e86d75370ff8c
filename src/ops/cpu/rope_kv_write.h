// The CPU implementations of ops/rope_kv_write.h.
#pragma once
#include "ops/rope_kv_write.h"

namespace moge::ops::cpu {

std::vector<Impl<RopeKvWrite>> rope_kv_write_impls();

}  // namespace moge::ops::cpu
