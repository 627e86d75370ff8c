// What the kernels of MulAttention share: their arguments and the arithmetic of merging, the same in each.
#pragma once
#include <cuda_bf16.h>

#include "ops/cuda/mma.cuh"

namespace moge::ops::cuda {

inline constexpr int kChunkPositions = 256;
inline constexpr int kChunksPerSpan = 8;

/// A unit of work is a chunk or a span of one sequence and KV head; see plan_units().
struct MulAttentionParams {
  __nv_bfloat16* out;
  const __nv_bfloat16* q;
  const float* k_scales;
  const float* v_scales;
  const int32_t* block_table;
  const int32_t* kv_lens;
  int64_t out_row, out_head, q_row, q_head, table_row;  ///< strides, elements
  int B, KV, G, query_rows, PS, box_rows;
  int chunk_units;   ///< share by chunks when the spans are fewer than this, over all KV heads, and ...
  int chunk_always;  ///< ... don't fill the blocks evenly; not 0: whenever they are fewer
  float scale_log2;  ///< scale / ln 2
  int32_t* plan;     ///< [B + 2]: chunks of a unit, then the units of the sequences before each, and all
  float* state;      ///< [units, KV, R, 2]: m and l of query row r = i G + head, R = query_rows G
  float* partial;    ///< [units, KV, R, Dh]: o

  __host__ __device__ int R() const { return query_rows * G; }
};

/// A row's running softmax, in powers of two.
struct SoftmaxState {
  float m = -INFINITY, l = 0;

  /// Takes in a later part (m, l). The values seen so far count `keep` times, the part's `add` times.
  __device__ __forceinline__ void merge(float part_m, float part_l, float& keep, float& add) {
    const float m_next = fmaxf(m, part_m);
    const float reference = m_next == -INFINITY ? 0.0F : m_next;
    keep = exp2_approx(m - reference);
    add = exp2_approx(part_m - reference);
    l = __fmaf_rn(part_l, add, __fmul_rn(l, keep));
    m = m_next;
  }
  /// What to multiply the values with at the end.
  __device__ __forceinline__ float inverse_sum() const { return l > 0 ? __frcp_rn(l) : 0.0F; }
};

__device__ __forceinline__ float merge_value(float value, float part, float keep, float add) {
  return __fmaf_rn(part, add, __fmul_rn(value, keep));
}

}  // namespace moge::ops::cuda
