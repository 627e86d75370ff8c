// What the parts of MulAttention share: arguments, shared memory, units of work, and the arithmetic of
// merging, the same in every kernel.
#pragma once
#include <cuda_bf16.h>

#include "ops/cuda/mma.cuh"
#include "ops/cuda/sm90/kv_tile.cuh"
#include "ops/cuda/sm90/ring.cuh"

namespace moge::ops::cuda {

inline constexpr int kChunkPositions = 256;
inline constexpr int kChunksPerSpan = 4;
/// Of a unit where there is much to do; then a unit's own 2 us are little beside its chunks' 4 each.
inline constexpr int kChunksPerUnit = 2 * kChunksPerSpan;
inline constexpr int kQueryStages = 2;
inline constexpr int kMinStages = 4;  ///< of the ring

struct MulAttentionParams {
  __nv_bfloat16* out;
  const __nv_bfloat16* q;
  const float* k_scales;
  const float* v_scales;
  const int32_t* block_table;
  const int32_t* kv_lens;
  int64_t out_row, out_head, q_row, q_head, table_row;  ///< strides, elements
  int B, KV, G, query_rows, PS, log2_box_rows;
  int table_pages;   ///< of a sequence, at most
  int max_spans;     ///< of a sequence
  int chunk_units;   ///< below so many units of one span, over all KV heads, single chunks are the units
  int tail_units;    ///< so many long units are cut up to be the last
  float scale_log2;  ///< scale / ln 2
  float* state;      ///< [parts, KV, R, 4]: m, l, 0, 0 of query row r = i G + head, R = query_rows G
  float* partial;    ///< [parts, KV, R, Dh]: o

  __host__ __device__ int R() const { return query_rows * G; }
};

/// Counters in device memory, 0 between launches: these follow each other in the backend's one stream, and
/// each leaves zeros behind.
struct MulAttentionSchedule {
  static constexpr int kMaxPairs = 16384;
  int given;  ///< units, beside each block's first
  int done;   ///< blocks
  /// [B, KV]: units whose parts are in the workspace; after the last, the pair to merge next plus 1.
  int arrived[kMaxPairs];
};

__host__ __device__ constexpr int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

/// How a kernel for one cache dtype, head dimension and number of operand columns (query rows, padded) is
/// laid out.
template <DType kKvDType, int kHeadDim, int kNumColumns>
struct MulAttentionConfig {
  static constexpr DType kKv = kKvDType;
  static constexpr int kDh = kHeadDim, kColumns = kNumColumns;
  static constexpr int kWarps = kDh / 16;  // that calculate
  static constexpr int kThreads = (kWarps + 1) * 32;
  static constexpr int kBlocksPerSm = kColumns > 16 ? 1 : 2;
  static constexpr bool kQuantised = size_of(kKv) == 1;
  /// Positions of a slot of the ring. Bytes have large ones: a slot costs some 15 instructions of every warp.
  static constexpr int kTile = kQuantised ? 16 * kWarps : 64;
  static constexpr int kTilesPerChunk = kChunkPositions / kTile;
  using Tile = KvTile<kKv, kDh, kTile>;
  /// Operands of mma: e4m3 becomes f16.
  static constexpr DType kOperand = kKv == DType::kFP8E4M3 ? DType::kF16 : kKv;
  static constexpr int kScaleBytes = kQuantised ? 2 * kTile * 4 : 0;  // K's and V's of a tile
  // 16 bytes more than a row has, so that rows start in other banks.
  static constexpr int kQueryRow = kDh * 2 + 16;
  static constexpr int kProbabilityRow = kChunkPositions * 2 + 16;
};

/// What a block knows of all work, in shared memory: see plan_units().
struct Plan {
  const int* units;    ///< [B + 1]: units of the sequences before each, of one KV head, and of all
  const int* lengths;  ///< [B]
  bool by_chunk;       ///< units are single chunks
  int fine_from;       ///< from this sequence on units are single spans

  __device__ int unit_chunks(int b) const {
    return by_chunk ? 1 : b < fine_from ? kChunksPerUnit : kChunksPerSpan;
  }
  /// Parts of a sequence in the workspace begin at multiples of so many chunks, the first at this place.
  __device__ int part_chunks() const { return by_chunk ? 1 : kChunksPerSpan; }
  /// Such places that the first part of a sequence of several units takes.
  __device__ int first_part_places(int b) const {
    return !by_chunk && b < fine_from ? kChunksPerUnit / kChunksPerSpan : 1;
  }
  __device__ int first_part(int b, int max_spans) const { return by_chunk ? units[b] : b * max_spans; }
  /// Whether units are single chunks, with so many units of a span.
  static __device__ bool by_chunks(const MulAttentionParams& a, int fine) {
    return fine * a.KV < a.chunk_units;
  }
  /// Units of a sequence of so many chunks. The last takes what remains: up to half of a unit more, or less.
  static __device__ int count(int chunks, int unit_chunks) {
    return chunks > 0 ? max((chunks + unit_chunks / 2) / unit_chunks, 1) : 0;
  }
};

/// One unit: which sequence and KV head, and its chunks [first, end). The warp that loads finds it and leaves
/// it in shared memory for the others. A sequence of several units leaves parts in the workspace: its first
/// unit one, of all its chunks; the others one for each span, or for the chunk that they are.
struct alignas(16) Unit {
  __device__ Unit(const MulAttentionParams& a, const Plan& plan, int id) : id(id), kv_head(id % a.KV) {
    const int of_sequences = id / a.KV;
    int low = 0, high = a.B;  // units[low] <= of_sequences < units[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (plan.units[middle] <= of_sequences ? low : high) = middle;
    }
    b = low;
    length = plan.lengths[b];
    const int size = plan.unit_chunks(b);
    count = plan.units[b + 1] - plan.units[b];
    const int index = of_sequences - plan.units[b];
    first = index * size;
    end = index + 1 < count ? first + size : ceil_div(length, kChunkPositions);
  }
  int id;  ///< below 0: there are no more units
  int kv_head, b, length, first, end;
  int count;  ///< units of the sequence
};

/// Byte offsets in dynamic shared memory.
template <class Config>
struct MulAttentionShared {
  __host__ __device__ MulAttentionShared(int B, int stages) : stages(stages) {
    int end = 0;
    const auto take = [&end](int bytes) { return (end += bytes) - bytes; };
    ring = take(stages * Config::Tile::kBytes);
    scales = take(stages * Config::kScaleBytes);
    q = take(kQueryStages * Config::kColumns * Config::kQueryRow);
    query_units = take(Config::kOperand == DType::kI8 ? Config::kColumns * 4 : 0);
    probabilities = take(Config::kColumns * Config::kProbabilityRow);
    maxima = take(Config::kWarps * Config::kColumns * 4);
    v_maxima = take(Config::kQuantised ? Config::kWarps * Config::kColumns * 4 : 0);
    sums = take(Config::kWarps * Config::kColumns * 4);
    unit_slots = take(kQueryStages * static_cast<int>(sizeof(Unit)));
    to_merge = take(16);
    total_states = take(Config::kWarps * Config::kColumns * 8);
    total_values = take(Config::kWarps * Config::kColumns * 4 * 16);
    barriers = take((2 * stages + 2 * kQueryStages) * 8);
    units = take((B + 1) * 4);
    lengths = take(B * 4);
    bytes = end;
  }
  __host__ __device__ int full(int slot) const { return barriers + slot * 8; }
  __host__ __device__ int empty(int slot) const { return full(stages + slot); }
  __host__ __device__ int query_full(int slot) const { return full(2 * stages + slot); }
  __host__ __device__ int query_empty(int slot) const { return full(2 * stages + kQueryStages + slot); }
  int stages, ring, scales, q, query_units, probabilities, maxima, v_maxima, sums, barriers, unit_slots,
      to_merge, total_states, total_values, units, lengths, bytes;
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
