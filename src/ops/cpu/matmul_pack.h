// Packing of weights into panels, per call or once and for all.
#pragma once
#include "core/thread_pool.h"
#include "ops/cpu/matmul_groups.h"
#include "ops/cpu/matmul_panels.h"

namespace moge::ops::cpu {

/// Rows of D elements that make a packing task of some 10 us.
inline int64_t pack_grain(int64_t D) {
  return std::max<int64_t>(1, 65536 / std::max<int64_t>(D, 1));
}

/// Packs w, [N, K] or [G, N, K] strided, into `to` [G, panels.words()]. The inner dimension is K, or N when
/// `transposed`. Groups without rows are left out.
void pack_weights(ThreadPool& pool, const vec::MatmulIsa& isa, const Tensor& w, bool transposed,
                  const Groups& groups, const Panels& panels, uint32_t* to);

}  // namespace moge::ops::cpu
