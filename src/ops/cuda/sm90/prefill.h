// Attention of many query rows per sequence over a paged cache: bound by the matrix units.
//
// A row's bits do not depend on how its prompt was cut: keys come in tiles of 128 positions from position 0
// on, whatever rows share the block, and a tile that a row does not see leaves its sums as they are.
#pragma once
#include "ops/attention.h"

namespace moge::ops::cuda {

extern const Impl<PagedAttention> prefill;

}  // namespace moge::ops::cuda
