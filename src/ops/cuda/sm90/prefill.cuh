// What the parts of the prefill kernel share: arguments, shared memory, items of work.
#pragma once
#include <cuda_bf16.h>

#include "ops/cuda/sm90/barrier.cuh"
#include "ops/cuda/sm90/kv_tile.cuh"

namespace moge::ops::cuda {

inline constexpr int kPrefillRows = 128;  // query rows of an item, 64 for each warpgroup that calculates
inline constexpr int kPrefillTile = 128;  // positions
inline constexpr int kPrefillStages = 2;  // of queries, of keys and of values

struct PrefillParams {
  __nv_bfloat16* out;
  const int32_t* block_table;  ///< null: the pages of sequence b are b MP .. b MP + MP - 1
  const int32_t* cu_q;
  const int32_t* kv_lens;
  int64_t out_row, out_head, table_row;  ///< strides, elements
  int B, H, KV, MP, PS, box_rows;
  float scale_log2;  ///< scale / ln 2
};

template <int kDh>
using PrefillTile = KvTile<DType::kBF16, kDh, kPrefillTile>;

/// Counters in device memory, 0 between launches: these follow each other in the backend's one stream, and
/// each leaves zeros behind.
struct PrefillSchedule {
  int given;  ///< items, beside each block's first
  int done;   ///< blocks
};

/// One item: up to 128 query rows of a sequence, one head. The warp that loads finds it and leaves it in
/// shared memory for the others.
struct alignas(16) PrefillItem {
  /// tiles_before[b]: items of the sequences before b, of one head. A head's neighbours read the same keys;
  /// of a sequence's rows the later ones, which see more, come first.
  __device__ PrefillItem(const PrefillParams& a, const int* tiles_before, int id) {
    head = id % a.H;
    kv_head = head / (a.H / a.KV);
    const int tile = tiles_before[a.B] - 1 - id / a.H;
    int low = 0, high = a.B;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (tiles_before[middle] <= tile ? low : high) = middle;
    }
    b = low;
    const int begin = a.cu_q[b], n = a.cu_q[b + 1] - begin, first = (tile - tiles_before[b]) * kPrefillRows;
    first_row = begin + first;
    rows = min(n - first, kPrefillRows);
    length = a.kv_lens[b];
    position = length - n + first;
    tiles = length > 0 ? (position + rows + kPrefillTile - 1) / kPrefillTile : 0;
  }
  int b, head, kv_head;
  int first_row, rows;  ///< of the batch
  int position;         ///< of the first row in its sequence
  int length;           ///< of the sequence
  int tiles;            ///< of keys that some row sees; below 0: there are no more items
};

/// Byte offsets in dynamic shared memory.
template <int kDh>
struct PrefillShared {
  static constexpr int kTileBytes = PrefillTile<kDh>::kBytes, kBoxes = PrefillTile<kDh>::kBoxes;
  __host__ __device__ explicit PrefillShared(int B)
      : tiles(barriers + (6 * kPrefillStages + 1) * 8), bytes(tiles + (B + 1) * 4) {}
  __host__ __device__ int q_full(int slot) const { return barriers + slot * 8; }
  __host__ __device__ int q_empty(int slot) const { return q_full(kPrefillStages + slot); }
  __host__ __device__ int k_full(int slot) const { return q_full(2 * kPrefillStages + slot); }
  __host__ __device__ int k_empty(int slot) const { return q_full(3 * kPrefillStages + slot); }
  __host__ __device__ int v_full(int slot) const { return q_full(4 * kPrefillStages + slot); }
  __host__ __device__ int v_empty(int slot) const { return q_full(5 * kPrefillStages + slot); }
  __host__ __device__ int tail() const { return q_full(6 * kPrefillStages); }
  static constexpr int kBlock = kPrefillTile * 128;  ///< 64 columns of a tile
  static constexpr int q(int slot) { return slot * kTileBytes; }
  static constexpr int k(int slot) { return (slot == 0 ? 2 * kBoxes : 3 * kBoxes + kBoxes / 2) * kBlock; }
  /// The blocks of a tile of values are v_stride(slot) apart, and so is the block of ones after the last:
  /// they are one operand, so that a product with weights ends with the weights' sums. In blocks of a head
  /// of 128: q q q q k k v k k v v v 1, the values of slot 0 those at 6 and 9.
  static constexpr int v(int slot) { return ones - kBoxes * v_stride(slot); }
  static constexpr int v_stride(int slot) { return (slot == 0 ? kBoxes + 1 : 1) * kBlock; }
  static_assert(kPrefillStages == 2);
  static constexpr int ones = 6 * kTileBytes;
  static constexpr int items = ones + kBlock,
                       barriers = items + kPrefillStages * static_cast<int>(sizeof(PrefillItem));
  int tiles, bytes;
};

}  // namespace moge::ops::cuda
