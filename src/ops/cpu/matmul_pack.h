// Packing of weights into panels, per call or once and for all.
#pragma once
#include <algorithm>

#include "core/thread_pool.h"
#include "ops/cpu/matmul_groups.h"
#include "ops/cpu/matmul_panels.h"

namespace moge::ops::cpu {

/// How operands of a dtype are packed; bf16 only in bf16.
inline const vec::MatmulPacking& packing_of(const vec::MatmulKernels& kernels, DType dtype) {
  return dtype == DType::kBF16 ? kernels.from_bf16 : kernels.from_f32;
}

/// How many rows of so many bytes ahead of packing to fetch: 16 KB, which hides the latency of memory and
/// leaves L1 room. By software, because rows may be gathered and the hardware follows no gather.
inline int64_t prefetch_rows(int64_t bytes) {
  return std::clamp<int64_t>(16384 / std::max<int64_t>(bytes, 1), 1, 32);
}
inline void prefetch_row(const std::byte* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kAlignment) __builtin_prefetch(row + i);
}

/// Steps begin .. begin + count - 1 of the panels first .. last - 1 of w [N, K] strided, into `to`, for each
/// panel [count, its width]. `fetched`: rows that become columns (not `transposed`) are in cache already.
void pack_panels(const vec::MatmulIsa& isa, const Tensor& w, bool transposed, const Panels& panels,
                 int64_t first, int64_t last, int64_t begin, int64_t count, bool fetched, uint32_t* to);

/// Packs w, [N, K] or [G, N, K] strided, into `to` [G, panels.words()]. The inner dimension is K, or N when
/// `transposed`. Groups without rows are left out.
void pack_weights(ThreadPool& pool, const vec::MatmulIsa& isa, const Tensor& w, bool transposed,
                  const Groups& groups, const Panels& panels, uint32_t* to);

}  // namespace moge::ops::cpu
