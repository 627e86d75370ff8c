#include "ops/cuda/sm90/mul_attention.h"

#include <algorithm>
#include <numeric>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/sm90/bulk_copy.cuh"
#include "ops/cuda/sm90/kv_tile.cuh"
#include "ops/cuda/sm90/mul_attention.cuh"
#include "ops/cuda/sm90/tma.cuh"
#include "ops/cuda/tensor_map.h"

namespace moge::ops::cuda {

namespace {

constexpr int kConsumerWarps = 4;
constexpr int kThreads = (kConsumerWarps + 1) * 32;
constexpr int kQueryStages = 2;
constexpr int kTilesPerChunk = kChunkPositions / kTilePositions;
constexpr int kScaleBytes = 2 * kTilePositions * 4;  // K's and V's of a tile
constexpr int kProbabilityRow =
    kChunkPositions * 2 + 16;  // bytes; 16 more, so that rows start in other banks

/// Dynamic shared memory, in this order.
struct SharedLayout {
  __host__ __device__ SharedLayout(int tile_bytes, bool quantised, int query_row, int columns, int B,
                                   int stages) {
    int end = 0;
    const auto take = [&end](int bytes) { return (end += bytes) - bytes; };
    ring = take(stages * tile_bytes);
    scales = take(quantised ? stages * kScaleBytes : 0);
    q = take(kQueryStages * columns * query_row);
    probabilities = take(columns * kProbabilityRow);
    maxima = take(kConsumerWarps * columns * 4);
    sums = take(kConsumerWarps * columns * 4);
    barriers = take((2 * stages + 2 * kQueryStages) * 8);
    units = take((B + 1) * 4);
    bytes = end;
  }
  int ring, scales, q, probabilities, maxima, sums, barriers, units, bytes;
};

/// Positions of a ring of `count` slots: which slot, and the parity of its current round.
struct RingPosition {
  int slot = 0;
  uint32_t round = 0;
  __device__ __forceinline__ void next(int count) {
    if (++slot == count) slot = 0, round ^= 1;
  }
};

__device__ __forceinline__ void consumers_sync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumerWarps * 32) : "memory");
}

__device__ __forceinline__ int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

/// Decides between spans and chunks and fills units[0, B]: units of the sequences before each. Returns the
/// chunks of a unit. All threads of the block.
__device__ int plan_units(const MulAttentionParams& a, int* units, int* scratch) {
  const int tid = threadIdx.x;
  const int per_thread = ceil_div(a.B, kThreads);
  const int begin = min(tid * per_thread, a.B), end = min(begin + per_thread, a.B);
  int spans = 0, chunks = 0;
  for (int b = begin; b < end; ++b) {
    const int count = ceil_div(max(a.kv_lens[b], 0), kChunkPositions);
    chunks += count;
    spans += ceil_div(count, kChunksPerSpan);
  }
  const int own_spans = spans, own_chunks = chunks;
  for (int d = 1; d < 32; d *= 2) {
    const int s = __shfl_up_sync(~0U, spans, d), c = __shfl_up_sync(~0U, chunks, d);
    if (tid % 32 >= d) spans += s, chunks += c;
  }
  if (tid % 32 == 31) scratch[tid / 32 * 2] = spans, scratch[tid / 32 * 2 + 1] = chunks;
  __syncthreads();
  int all_spans = 0;
  for (int w = 0; w <= kConsumerWarps; ++w) {
    if (w < tid / 32) spans += scratch[2 * w], chunks += scratch[2 * w + 1];
    all_spans += scratch[2 * w];
  }
  // Spans that fill their last round of blocks badly cost more than the partial results of chunks.
  const int work = all_spans * a.KV, blocks = gridDim.x;
  const bool even = work * 10 >= ceil_div(work, blocks) * blocks * 9;
  const bool by_chunk = work < a.chunk_units && (a.chunk_always || !even);
  int before = by_chunk ? chunks - own_chunks : spans - own_spans;
  const int unit_chunks = by_chunk ? 1 : kChunksPerSpan;
  for (int b = begin; b < end; ++b) {
    units[b] = before;
    before += ceil_div(max(a.kv_lens[b], 0), unit_chunks * kChunkPositions);
  }
  if (begin < a.B && end == a.B) units[a.B] = before;
  __syncthreads();
  return unit_chunks;
}

/// One unit: which sequence and KV head, and its chunks [first, end).
struct Unit {
  __device__ Unit(const MulAttentionParams& a, const int* units, int unit_chunks, int id)
      : id(id), kv_head(id % a.KV) {
    const int of_sequences = id / a.KV;
    int low = 0, high = a.B;  // units[low] <= of_sequences < units[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (units[middle] <= of_sequences ? low : high) = middle;
    }
    b = low;
    length = a.kv_lens[b];
    const int all = ceil_div(length, kChunkPositions);
    first = (of_sequences - units[b]) * unit_chunks;
    end = min(first + unit_chunks, all);
    whole = first == 0 && end == all;
  }
  int id, kv_head, b, length, first, end;
  bool whole;  ///< the sequence's only unit
};

/// The warp that keeps the copy engine busy: queries, then for each chunk its tiles of keys and of values.
template <DType kKv, int kDh, int kColumns>
struct Producer {
  using Tile = KvTile<kKv, kDh>;
  static constexpr int kQueryRow = kDh * 2 + 16;

  const MulAttentionParams& a;
  const CUtensorMap& k_map;
  const CUtensorMap& v_map;
  uint32_t shared;
  const SharedLayout& layout;
  int stages;
  uint64_t policy = evict_first();
  RingPosition tile_at, query_at;

  __device__ uint32_t full(int slot) const { return shared + layout.barriers + slot * 8; }
  __device__ uint32_t empty(int slot) const { return full(stages + slot); }
  __device__ uint32_t query_full(int slot) const { return full(2 * stages + slot); }
  __device__ uint32_t query_empty(int slot) const { return full(2 * stages + kQueryStages + slot); }

  __device__ void load_queries(const Unit& u) {
    const int lane = threadIdx.x % 32;
    const uint32_t barrier = query_full(query_at.slot);
    barrier_wait(query_empty(query_at.slot), query_at.round ^ 1);
    if (lane == 0) barrier_arrive_expect(barrier, a.R() * kDh * 2);
    __syncwarp();
    const uint32_t to = shared + layout.q + query_at.slot * kColumns * kQueryRow;
    for (int r = lane; r < a.R(); r += 32) {
      const int64_t token = static_cast<int64_t>(u.b) * a.query_rows + r / a.G;
      load_bytes(to + r * kQueryRow, a.q + token * a.q_row + (u.kv_head * a.G + r % a.G) * a.q_head, kDh * 2,
                 barrier);
    }
    query_at.next(kQueryStages);
  }

  /// The pages of boxes [group, group + 32) of a sequence, one a lane.
  __device__ int load_pages(const Unit& u, int group) const {
    const int position = (group + static_cast<int>(threadIdx.x) % 32) * a.box_rows;
    return position < u.length ? __ldg(a.block_table + u.b * a.table_row + position / a.PS) : 0;
  }

  /// `boxes` boxes of positions from `position` on, whose pages lanes hold.
  __device__ void load_tile(const Unit& u, const CUtensorMap& map, bool keys, int position, int boxes,
                            int pages) {
    const int lane = threadIdx.x % 32;
    const int page = __shfl_sync(~0U, pages, position / a.box_rows % 32 + lane);
    const int slot = tile_at.slot;
    barrier_wait(empty(slot), tile_at.round ^ 1);
    const int rows = boxes * a.box_rows;
    if (lane == 0)
      barrier_arrive_expect(full(slot), rows * (Tile::kRowBytes + (Tile::kQuantised && keys ? 8 : 0)));
    __syncwarp();
    if (lane < boxes) {
      const int in_page = (position + lane * a.box_rows) % a.PS;
      const int row = (page * a.KV + u.kv_head) * a.PS + in_page;
      const uint32_t to = shared + layout.ring + slot * Tile::kBytes + lane * a.box_rows * Tile::kBoxRowBytes;
      for (int i = 0; i < Tile::kBoxes; ++i)
        load_box(to + i * kTilePositions * Tile::kBoxRowBytes, map, i * (kDh / Tile::kBoxes), row, full(slot),
                 policy);
      if (Tile::kQuantised && keys) {
        const uint32_t scales = shared + layout.scales + slot * kScaleBytes + lane * a.box_rows * 4;
        load_bytes(scales, a.k_scales + row, a.box_rows * 4, full(slot));
        load_bytes(scales + kTilePositions * 4, a.v_scales + row, a.box_rows * 4, full(slot));
      }
    }
    tile_at.next(stages);
  }

  __device__ void run(const int* units, int unit_chunks) {
    const int count = units[a.B] * a.KV;
    for (int id = blockIdx.x; id < count; id += gridDim.x) {
      const Unit u(a, units, unit_chunks, id);
      const int boxes_per_chunk = kChunkPositions / a.box_rows;
      int next_pages = load_pages(u, u.first * boxes_per_chunk / 32 * 32);
      int pages = 0;
      load_queries(u);
      for (int c = u.first; c < u.end; ++c) {
        const int box = c * boxes_per_chunk;
        if (c == u.first || box % 32 == 0) {
          pages = next_pages;
          if (c + 1 < u.end) next_pages = load_pages(u, box / 32 * 32 + 32);
        }
        const int begin = c * kChunkPositions, end = min(begin + kChunkPositions, u.length);
        for (int p = begin; p < end; p += kTilePositions)
          load_tile(u, k_map, true, p, ceil_div(min(end - p, kTilePositions), a.box_rows), pages);
        for (int p = begin; p < end; p += kTilePositions)
          load_tile(u, v_map, false, p, ceil_div(min(end - p, kTilePositions), a.box_rows), pages);
      }
    }
  }
};

/// The warps that calculate. Scores are K q^T: a warp takes 16 of a tile's 64 positions, all query rows.
/// Values are V^T p^T: a warp takes a quarter of the head, all positions. With lane = 4g + t a thread's query
/// rows are 8n + 2t and 8n + 2t + 1.
template <DType kKv, int kDh, int kColumns>
struct Consumer {
  using Tile = KvTile<kKv, kDh>;
  static constexpr int kQueryRow = kDh * 2 + 16;
  static constexpr int kN = kColumns / 8;
  static constexpr int kM = kDh / 64;  // blocks of 16 of the head, a warp's
  static constexpr int kK = kDh / 32;  // pairs of steps along the head
  static constexpr bool kHoldQueries = kN <= 2;

  const MulAttentionParams& a;
  uint32_t shared;
  const SharedLayout& layout;
  int stages;
  float* maxima;  // [kConsumerWarps, kColumns]
  float* sums;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  RingPosition tile_at, query_at;
  uint32_t q[kHoldQueries ? kK : 1][kN][4];
  float s[kTilesPerChunk][kN][4];
  float v_scale[Tile::kQuantised ? kTilesPerChunk : 1][2];
  SoftmaxState state[kN][2];
  float o[kM][kN][4];

  __device__ uint32_t full(int slot) const { return shared + layout.barriers + slot * 8; }
  __device__ uint32_t empty(int slot) const { return full(stages + slot); }

  /// B operands of two steps along the head, in the order in which this cache's keys come.
  __device__ void load_query(uint32_t (&into)[4], int n, int k) {
    const uint32_t rows = shared + layout.q + query_at.slot * kColumns * kQueryRow + n * 8 * kQueryRow;
    if constexpr (Tile::kQuantised) {
      for (int i = 0; i < 2; ++i) {
        uint32_t x, y;
        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                     : "=r"(x), "=r"(y)
                     : "r"(rows + g * kQueryRow + (32 * k + 16 * i + 4 * t) * 2));
        into[2 * i] = __byte_perm(x, y, 0x5410);      // elements 4t, 4t + 2
        into[2 * i + 1] = __byte_perm(x, y, 0x7632);  // 4t + 1, 4t + 3
      }
    } else {
      load_matrices(into, rows + (lane & 7) * kQueryRow + (4 * k + (lane >> 3)) * 16);
    }
  }

  __device__ void start(const Unit&) {
    barrier_wait(full(2 * stages + query_at.slot), query_at.round);
    if constexpr (kHoldQueries) {
#pragma unroll
      for (int k = 0; k < kK; ++k)
#pragma unroll
        for (int n = 0; n < kN; ++n) load_query(q[k][n], n, k);
    }
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      state[n][0] = state[n][1] = SoftmaxState{};
#pragma unroll
      for (int m = 0; m < kM; ++m) o[m][n][0] = o[m][n][1] = o[m][n][2] = o[m][n][3] = 0;
    }
  }
  __device__ void finish_queries() {
    __syncwarp();
    if (lane == 0) barrier_arrive(full(2 * stages + kQueryStages + query_at.slot));
    query_at.next(kQueryStages);
  }

  __device__ void release_tile() {
    __syncwarp();
    if (lane == 0) barrier_arrive(empty(tile_at.slot));
    tile_at.next(stages);
  }

  /// s[i] = scores of the chunk's tile i, times log2 e; the tile is taken from the ring.
  __device__ __forceinline__ void score_tile(int i) {
    barrier_wait(full(tile_at.slot), tile_at.round);
    const uint32_t tile = shared + layout.ring + tile_at.slot * Tile::kBytes;
#pragma unroll
    for (int n = 0; n < kN; ++n) s[i][n][0] = s[i][n][1] = s[i][n][2] = s[i][n][3] = 0;
#pragma unroll
    for (int k = 0; k < kK; ++k) {
      uint32_t keys[2][4];
      if constexpr (Tile::kQuantised) {
        uint32_t raw[4];
        load_matrices(raw, Tile::at(tile, warp * 16 + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          unpack_bytes<kKv>(raw[2 * j], keys[j][0], keys[j][2]);
          unpack_bytes<kKv>(raw[2 * j + 1], keys[j][1], keys[j][3]);
        }
      } else {
#pragma unroll
        for (int j = 0; j < 2; ++j)
          load_matrices(keys[j], Tile::at(tile, warp * 16 + (lane & 15), 4 * k + 2 * j + (lane >> 4)));
      }
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        uint32_t reloaded[4];
        if constexpr (!kHoldQueries) load_query(reloaded, n, k);
        const uint32_t(&b)[4] = kHoldQueries ? q[kHoldQueries ? k : 0][n] : reloaded;
        mma_bf16(s[i][n], keys[0], b[0], b[1]);
        mma_bf16(s[i][n], keys[1], b[2], b[3]);
      }
    }
    float k_scale[2] = {a.scale_log2, a.scale_log2};
    if constexpr (Tile::kQuantised) {
      const uint32_t scales = shared + layout.scales + tile_at.slot * kScaleBytes + (warp * 16 + g) * 4;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float k, v;
        asm volatile("ld.shared.f32 %0, [%1];" : "=f"(k) : "r"(scales + h * 32));
        asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(scales + h * 32 + kTilePositions * 4));
        k_scale[h] *= k;
        v_scale[i][h] = v;
      }
    }
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int j = 0; j < 4; ++j) s[i][n][j] *= k_scale[j / 2];
    release_tile();
  }

  /// Turns s into probabilities in shared memory; m and l of the chunk.
  __device__ __forceinline__ void softmax(const Unit& u, int chunk, int tiles, float (&m)[kN][2],
                                          float (&l)[kN][2]) {
    const int begin = chunk * kChunkPositions;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        // Row i of n sees positions 0 .. length - n + i. Rows that fill up the operand: anything.
        const int row = (8 * n + 2 * t + j) / a.G;
        const int visible = u.length - a.query_rows + 1 + row - begin;
        float top = -INFINITY;
#pragma unroll
        for (int i = 0; i < kTilesPerChunk; ++i) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float& score = s[i][n][2 * h + j];
            if (i >= tiles || i * kTilePositions + warp * 16 + g + 8 * h >= visible) score = -INFINITY;
            top = fmaxf(top, score);
          }
        }
        for (int d = 4; d < 32; d *= 2) top = fmaxf(top, __shfl_xor_sync(~0U, top, d));
        m[n][j] = top;
        if (g == 0) maxima[warp * kColumns + 8 * n + 2 * t + j] = top;
      }
    }
    consumers_sync();
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        for (int w = 0; w < kConsumerWarps; ++w)
          m[n][j] = fmaxf(m[n][j], maxima[w * kColumns + 8 * n + 2 * t + j]);
        const float reference = m[n][j] == -INFINITY ? 0.0F : m[n][j];
        float sum = 0;
#pragma unroll
        for (int i = 0; i < kTilesPerChunk; ++i) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float& p = s[i][n][2 * h + j];
            p = exp2_approx(p - reference);
            sum = __fadd_rn(sum, p);
            // Scales of positions past the end may be anything.
            if constexpr (Tile::kQuantised) p = p == 0 ? 0.0F : p * v_scale[i][h];
          }
        }
        for (int d = 4; d < 32; d *= 2) sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, d));
        if (g == 0) sums[warp * kColumns + 8 * n + 2 * t + j] = sum;
      }
#pragma unroll
      for (int i = 0; i < kTilesPerChunk; ++i) {
        const int position = i * kTilePositions + warp * 16 + (lane & 8);
        store_matrices_transposed(
            shared + layout.probabilities + (8 * n + (lane & 7)) * kProbabilityRow + position * 2,
            pack_bf16(s[i][n][0], s[i][n][1]), pack_bf16(s[i][n][2], s[i][n][3]));
      }
    }
    consumers_sync();
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float* sum = sums + 8 * n + 2 * t + j;
        l[n][j] =
            __fadd_rn(__fadd_rn(__fadd_rn(sum[0], sum[kColumns]), sum[2 * kColumns]), sum[3 * kColumns]);
      }
    }
  }

  /// values += the chunk's tile i, of which the first `count` positions exist; taken from the ring.
  __device__ __forceinline__ void weigh_tile(float (&values)[kM][kN][4], int i, int count) {
    barrier_wait(full(tile_at.slot), tile_at.round);
    const uint32_t tile = shared + layout.ring + tile_at.slot * Tile::kBytes;
#pragma unroll
    for (int pair = 0; pair < kTilePositions / 32; ++pair) {
      if (pair * 32 >= count) break;
      uint32_t p[kN][4];
#pragma unroll
      for (int n = 0; n < kN; ++n)
        load_matrices(p[n], shared + layout.probabilities + (8 * n + (lane & 7)) * kProbabilityRow +
                                (i * kTilePositions + pair * 32 + (lane >> 3) * 8) * 2);
      uint32_t raw[4];
      if constexpr (Tile::kQuantised && kM == 1)
        load_matrices_transposed(raw, Tile::at(tile, pair * 32 + lane, warp));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int position = pair * 32 + half * 16;
        if (position >= count) break;
        uint32_t values_t[kM][4];
        if constexpr (!Tile::kQuantised) {
#pragma unroll
          for (int m = 0; m < kM; ++m)
            load_matrices_transposed(values_t[m], Tile::at(tile, position + (lane & 7) + (lane >> 4) * 8,
                                                           2 * (warp * kM + m) + ((lane >> 3) & 1)));
        } else {
          if constexpr (kM == 2)
            load_matrices_transposed(raw, Tile::at(tile, position + (lane & 15), warp * kM + (lane >> 4)));
#pragma unroll
          for (int m = 0; m < kM; ++m) {
            const int first = kM == 2 ? 2 * m : 2 * half;
            unpack_bytes<kKv>(raw[first], values_t[m][0], values_t[m][1]);
            unpack_bytes<kKv>(raw[first + 1], values_t[m][2], values_t[m][3]);
          }
        }
        if (position + 16 > count) {  // what lies behind the last position may be NaN
          const auto mask = [](int left) {
            return (left > 0 ? 0x0000ffffU : 0U) | (left > 1 ? 0xffff0000U : 0U);
          };
          const uint32_t low = mask(count - position - 2 * t), high = mask(count - position - 2 * t - 8);
#pragma unroll
          for (int m = 0; m < kM; ++m) {
            values_t[m][0] &= low, values_t[m][1] &= low;
            values_t[m][2] &= high, values_t[m][3] &= high;
          }
        }
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int n = 0; n < kN; ++n)
            mma_bf16(values[m][n], values_t[m], p[n][2 * half], p[n][2 * half + 1]);
      }
    }
    release_tile();
  }

  __device__ void add_chunk(const Unit& u, int chunk) {
    const int count = min(u.length - chunk * kChunkPositions, kChunkPositions);
    const int tiles = ceil_div(count, kTilePositions);
#pragma unroll
    for (int i = 0; i < kTilesPerChunk; ++i)
      if (i < tiles) score_tile(i);
    float m[kN][2], l[kN][2];
    softmax(u, chunk, tiles, m, l);
    float values[kM][kN][4] = {};
#pragma unroll
    for (int i = 0; i < kTilesPerChunk; ++i)
      if (i < tiles) weigh_tile(values, i, count - i * kTilePositions);
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float keep, add;
        state[n][j].merge(m[n][j], l[n][j], keep, add);
#pragma unroll
        for (int i = 0; i < kM; ++i) {
          o[i][n][j] = merge_value(o[i][n][j], values[i][n][j], keep, add);
          o[i][n][j + 2] = merge_value(o[i][n][j + 2], values[i][n][j + 2], keep, add);
        }
      }
    }
  }

  /// The element of the head that o[m][..][2 half] belongs to.
  __device__ int element(int m, int half) const {
    const int block = (warp * kM + m) * 16;
    return Tile::kQuantised ? block + 2 * g + half : block + g + 8 * half;
  }

  __device__ void store(const Unit& u) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int r = 8 * n + 2 * t + j;
        if (r >= a.R()) continue;
        if (u.whole) {
          const int64_t token = static_cast<int64_t>(u.b) * a.query_rows + r / a.G;
          __nv_bfloat16* out = a.out + token * a.out_row + (u.kv_head * a.G + r % a.G) * a.out_head;
          const float inverse = state[n][j].inverse_sum();
#pragma unroll
          for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half)
              out[element(m, half)] = __float2bfloat16_rn(__fmul_rn(o[m][n][j + 2 * half], inverse));
        } else {
          const int64_t row = static_cast<int64_t>(u.id) * a.R() + r;
          if (warp == 0 && g == 0) a.state[2 * row] = state[n][j].m, a.state[2 * row + 1] = state[n][j].l;
#pragma unroll
          for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half)
              a.partial[row * kDh + element(m, half)] = o[m][n][j + 2 * half];
        }
      }
    }
  }

  __device__ void run(const int* units, int unit_chunks) {
    const int count = units[a.B] * a.KV;
    for (int id = blockIdx.x; id < count; id += gridDim.x) {
      const Unit u(a, units, unit_chunks, id);
      start(u);
      for (int c = u.first; c < u.end; ++c) add_chunk(u, c);
      finish_queries();
      store(u);
    }
  }
};

/// Zeros in the rows of idle sequences, and the plan for the combine kernel.
__device__ void store_rest(const MulAttentionParams& a, int Dh, const int* units, int unit_chunks) {
  for (int b = blockIdx.x; b < a.B; b += gridDim.x) {
    if (a.kv_lens[b] > 0) continue;
    const int heads = a.KV * a.G;
    for (int i = threadIdx.x; i < a.query_rows * heads * Dh; i += blockDim.x) {
      const int64_t token = static_cast<int64_t>(b) * a.query_rows + i / (heads * Dh);
      a.out[token * a.out_row + i / Dh % heads * a.out_head + i % Dh] = __float2bfloat16_rn(0);
    }
  }
  if (blockIdx.x > 0 || !a.plan) return;
  for (int b = threadIdx.x; b <= a.B; b += blockDim.x) a.plan[1 + b] = units[b];
  if (threadIdx.x == 0) a.plan[0] = unit_chunks;
}

template <DType kKv, int kDh, int kColumns>
__global__ void __launch_bounds__(kThreads, kColumns > 16 ? 1 : 2)
    mul_attention_kernel(const __grid_constant__ CUtensorMap k_map, const __grid_constant__ CUtensorMap v_map,
                         const __grid_constant__ MulAttentionParams a, int stages) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  const SharedLayout layout(KvTile<kKv, kDh>::kBytes, KvTile<kKv, kDh>::kQuantised, kDh * 2 + 16, kColumns,
                            a.B, stages);
  const uint32_t shared = shared_address(shared_bytes);
  const int warp = threadIdx.x / 32;
  if (threadIdx.x == 0) {
    const uint32_t barriers = shared + layout.barriers;
    for (int i = 0; i < stages; ++i) {
      barrier_init(barriers + i * 8, 1);
      barrier_init(barriers + (stages + i) * 8, kConsumerWarps);
    }
    for (int i = 0; i < kQueryStages; ++i) {
      barrier_init(barriers + (2 * stages + i) * 8, 1);
      barrier_init(barriers + (2 * stages + kQueryStages + i) * 8, kConsumerWarps);
    }
    fence_barrier_init();
    prefetch_map(k_map);
    prefetch_map(v_map);
  }
  // Rows that only fill up the operand are read too.
  for (int i = threadIdx.x; i < kQueryStages * kColumns * (kDh * 2 + 16) / 4; i += kThreads)
    reinterpret_cast<uint32_t*>(shared_bytes + layout.q)[i] = 0;
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  wait_for_previous();
  let_next_start();
  int* units = reinterpret_cast<int*>(shared_bytes + layout.units);
  float* maxima = reinterpret_cast<float*>(shared_bytes + layout.maxima);
  const int unit_chunks = plan_units(a, units, reinterpret_cast<int*>(maxima));
  if (warp == kConsumerWarps) {
    Producer<kKv, kDh, kColumns>{a, k_map, v_map, shared, layout, stages}.run(units, unit_chunks);
  } else {
    Consumer<kKv, kDh, kColumns>{a,      shared, layout,
                                 stages, maxima, reinterpret_cast<float*>(shared_bytes + layout.sums)}
        .run(units, unit_chunks);
  }
  store_rest(a, kDh, units, unit_chunks);
}

/// Merges what blocks left of the sequences with several units: block (b, KV head), rows along y. Threads:
/// (element of the head, one of kGroups spans at a time).
template <int kDh>
__global__ void __launch_bounds__(kDh * 4) combine_kernel(const __grid_constant__ MulAttentionParams a) {
  constexpr int kGroups = 4;
  __shared__ float values[kGroups][kDh];
  __shared__ SoftmaxState states[kGroups];
  wait_for_previous();
  let_next_start();
  const int b = blockIdx.x / a.KV, kv_head = blockIdx.x % a.KV;
  const int64_t first = a.plan[1 + b];
  const int count = a.plan[2 + b] - static_cast<int>(first);
  if (count <= 1) return;
  const int per_span = a.plan[0] == 1 ? kChunksPerSpan : 1;
  const int spans = ceil_div(count, per_span);
  const int d = threadIdx.x, group = threadIdx.y;
  for (int r = blockIdx.y; r < a.R(); r += gridDim.y) {
    SoftmaxState all;
    float value = 0;
    for (int span = 0; span < spans; span += kGroups) {
      const int own = span + group;
      if (own < spans) {
        float m[kChunksPerSpan], l[kChunksPerSpan], o[kChunksPerSpan];
#pragma unroll
        for (int i = 0; i < kChunksPerSpan; ++i) {
          const int unit = own * per_span + i;
          if (i >= per_span || unit >= count) break;
          const int64_t row = ((first + unit) * a.KV + kv_head) * a.R() + r;
          m[i] = a.state[2 * row];
          l[i] = a.state[2 * row + 1];
          o[i] = a.partial[row * kDh + d];
        }
        SoftmaxState state;
        float merged = 0;
#pragma unroll
        for (int i = 0; i < kChunksPerSpan; ++i) {
          if (i >= per_span || own * per_span + i >= count) break;
          float keep, add;
          state.merge(m[i], l[i], keep, add);
          merged = merge_value(merged, o[i], keep, add);
        }
        values[group][d] = merged;
        if (d == 0) states[group] = state;
      }
      __syncthreads();
      for (int i = 0; i < kGroups && span + i < spans; ++i) {
        float keep, add;
        all.merge(states[i].m, states[i].l, keep, add);
        value = merge_value(value, values[i][d], keep, add);
      }
      __syncthreads();
    }
    if (group == 0) {
      const int64_t token = static_cast<int64_t>(b) * a.query_rows + r / a.G;
      a.out[token * a.out_row + (kv_head * a.G + r % a.G) * a.out_head + d] =
          __float2bfloat16_rn(__fmul_rn(value, all.inverse_sum()));
    }
  }
}

struct Sizes {
  explicit Sizes(const ExecContext& ctx, const PagedAttention& a)
      : B(a.kv_lens.dim(0)),
        KV(a.k_pages.dim(1)),
        R(a.decode_rows * a.q.dim(1) / KV),
        Dh(a.q.dim(2)),
        columns(R <= 8    ? 8
                : R <= 16 ? 16
                          : 40),
        max_chunks(ceil(a.block_table.dim(1) * a.k_pages.dim(2), kChunkPositions)),
        slots(static_cast<int64_t>(ctx.backend->info().num_sms) * (columns > 16 ? 1 : 2)),
        // As many as whose partial results stay in the L2.
        chunk_units(slots * 64 / columns) {}
  static int64_t ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }
  int64_t all_units() const {
    const int64_t spans = B * KV * ceil(max_chunks, kChunksPerSpan);
    const int64_t chunks = std::min(B * KV * max_chunks, chunk_units * kChunksPerSpan);
    return std::max(spans, chunks);
  }
  /// A sequence may have more than one unit.
  bool combine() const { return max_chunks > 1; }
  int64_t plan_bytes() const { return ceil((B + 2) * 4, 256) * 256; }
  int64_t state_bytes() const { return ceil(all_units() * R * 8, 256) * 256; }
  int64_t partial_bytes() const { return all_units() * R * Dh * 4; }

  int64_t B, KV, R, Dh;
  int columns;
  int64_t max_chunks, slots, chunk_units;
};

template <DType kKv, int kDh, int kColumns>
void launch_mul_attention(ExecContext& ctx, const PagedAttention& a, const MulAttentionParams& p,
                          const Sizes& n) {
  const char* op = "mul_attention";
  using Tile = KvTile<kKv, kDh>;
  const auto map = [&](const Tensor& pages) {
    return matrix_map(op, pages.data, kKv, pages.numel() / kDh, kDh, p.box_rows, kDh / Tile::kBoxes);
  };
  // 227 KB on an SM, and 1 KB of each block is the system's.
  const int limit = kColumns > 16 ? 227 * 1024 : (228 * 1024) / 2 - 1024;
  int stages = 16;
  const auto bytes = [&] {
    return SharedLayout(Tile::kBytes, Tile::kQuantised, kDh * 2 + 16, kColumns, p.B, stages).bytes;
  };
  while (stages > 4 && bytes() > limit) --stages;
  const int64_t grid = std::min(n.slots, n.B * n.KV * n.max_chunks);
  launch(ctx, op, mul_attention_kernel<kKv, kDh, kColumns>,
         {.grid = static_cast<unsigned>(grid), .block = kThreads, .shared_bytes = bytes()}, map(a.k_pages),
         map(a.v_pages), p, stages);
  if (!n.combine()) return;
  const int64_t pairs = n.B * n.KV;
  launch(ctx, op, combine_kernel<kDh>,
         {.grid = dim3(static_cast<unsigned>(pairs), pairs <= 256 ? static_cast<unsigned>(n.R) : 1),
          .block = dim3(kDh, 4)},
         p);
}

template <DType kKv, int kDh>
void launch_columns(ExecContext& ctx, const PagedAttention& a, const MulAttentionParams& p, const Sizes& n) {
  if (n.columns == 8) return launch_mul_attention<kKv, kDh, 8>(ctx, a, p, n);
  if (n.columns == 16) return launch_mul_attention<kKv, kDh, 16>(ctx, a, p, n);
  launch_mul_attention<kKv, kDh, 40>(ctx, a, p, n);
}

template <DType kKv>
void launch_dh(ExecContext& ctx, const PagedAttention& a, const MulAttentionParams& p, const Sizes& n) {
  if (n.Dh == 64) return launch_columns<kKv, 64>(ctx, a, p, n);
  launch_columns<kKv, 128>(ctx, a, p, n);
}

}  // namespace

Refusal mul_attention_refusal(const PagedAttention& a) {
  const int64_t Dh = a.q.dim(2), PS = a.k_pages.dim(2), R = a.decode_rows * a.q.dim(1) / a.k_pages.dim(1);
  if (a.decode_rows <= 0) return "decode_rows 0: expected the same number of query rows in all sequences";
  if (a.q.dim(0) != a.kv_lens.dim(0) * a.decode_rows)
    return str(a.q.dim(0), " query rows: expected ", a.decode_rows, " for each of ", a.kv_lens.dim(0),
               " sequences");
  if (a.q.dtype != DType::kBF16) return str("q ", name_of(a.q.dtype), ": expected bf16");
  if (a.k_pages.dtype == DType::kF32) return "f32 pages: expected bf16, i8 or fp8_e4m3";
  if (Dh != 64 && Dh != 128) return str("head dimension ", Dh, ": expected 64 or 128");
  if (PS % 16 != 0) return str("pages of ", PS, " positions: expected a multiple of 16");
  if (R > 40) return str(R, " query rows for a KV head: expected at most 40");
  if (a.kv_lens.dim(0) > 2048) return str(a.kv_lens.dim(0), " sequences: expected at most 2048");
  if (!a.k_pages.is_contiguous() || !a.v_pages.is_contiguous())
    return "strided pages: expected contiguous ones";
  if (a.q.stride(0) % 8 != 0 || a.q.stride(1) % 8 != 0 || reinterpret_cast<uintptr_t>(a.q.data) % 16 != 0)
    return "q: expected rows that begin at multiples of 16 bytes";
  return {};
}

int64_t mul_attention_workspace(const ExecContext& ctx, const PagedAttention& a) {
  const Sizes n(ctx, a);
  return n.combine() ? n.plan_bytes() + n.state_bytes() + n.partial_bytes() : 0;
}

void mul_attention(ExecContext& ctx, const PagedAttention& a, std::span<std::byte> workspace, Split split) {
  const Sizes n(ctx, a);
  if (n.B == 0) return;
  std::byte* memory = workspace.data();
  const auto PS = static_cast<int>(a.k_pages.dim(2));
  const MulAttentionParams p{.out = static_cast<__nv_bfloat16*>(a.out.data),
                             .q = static_cast<const __nv_bfloat16*>(a.q.data),
                             .k_scales = static_cast<const float*>(a.k_scales.data),
                             .v_scales = static_cast<const float*>(a.v_scales.data),
                             .block_table = a.block_table.ptr<int32_t>(),
                             .kv_lens = a.kv_lens.ptr<int32_t>(),
                             .out_row = a.out.stride(0),
                             .out_head = a.out.stride(1),
                             .q_row = a.q.stride(0),
                             .q_head = a.q.stride(1),
                             .table_row = a.block_table.stride(0),
                             .B = static_cast<int>(n.B),
                             .KV = static_cast<int>(n.KV),
                             .G = static_cast<int>(a.q.dim(1) / n.KV),
                             .query_rows = a.decode_rows,
                             .PS = PS,
                             .box_rows = std::gcd(PS, kTilePositions),
                             .chunk_units = split == Split::kSpans ? 0 : static_cast<int>(n.chunk_units),
                             .chunk_always = split == Split::kChunks,
                             .scale_log2 = a.scale * 1.44269504F,
                             .plan = n.combine() ? reinterpret_cast<int32_t*>(memory) : nullptr,
                             .state = reinterpret_cast<float*>(memory + n.plan_bytes()),
                             .partial = reinterpret_cast<float*>(memory + n.plan_bytes() + n.state_bytes())};
  switch (a.k_pages.dtype) {
    case DType::kI8:
      return launch_dh<DType::kI8>(ctx, a, p, n);
    case DType::kFP8E4M3:
      return launch_dh<DType::kFP8E4M3>(ctx, a, p, n);
    default:
      return launch_dh<DType::kBF16>(ctx, a, p, n);
  }
}

}  // namespace moge::ops::cuda
