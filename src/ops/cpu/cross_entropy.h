// The CPU implementations of ops/cross_entropy.h, fastest first.
#pragma once
#include "ops/cross_entropy.h"

namespace moge::ops::cpu {

std::vector<Impl<CrossEntropy>> cross_entropy_impls();

/// Throws ShapeError for a target outside -1..V-1.
void check_targets(const CrossEntropy& args);

/// The reference (cross_entropy_ref.cpp).
extern const Impl<CrossEntropy> cross_entropy_ref;

}  // namespace moge::ops::cpu
