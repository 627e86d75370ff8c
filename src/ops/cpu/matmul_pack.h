// Packing of weights into panels, per call or once and for all.
#pragma once
#include "core/thread_pool.h"
#include "ops/cpu/matmul_groups.h"
#include "ops/cpu/matmul_panels.h"

namespace moge::ops::cpu {

/// Steps of rows (one or two rows each) that make a packing task where columns lie along rows.
inline constexpr int64_t kPackSteps = 16;

/// Rows are fetched this many packing steps ahead: they may be gathered, and the hardware follows no gather.
inline constexpr int64_t kPrefetchSteps = 4;
inline void prefetch_row(const float* row, int64_t n) {
  for (int64_t i = 0; i < n; i += kAlignment / 4) __builtin_prefetch(row + i);
}

/// Packs w, [N, K] or [G, N, K] strided, into `to` [G, panels.words()]. The inner dimension is K, or N when
/// `transposed`. Groups without rows are left out.
void pack_weights(ThreadPool& pool, const vec::MatmulIsa& isa, const Tensor& w, bool transposed,
                  const Groups& groups, const Panels& panels, uint32_t* to);

}  // namespace moge::ops::cpu
