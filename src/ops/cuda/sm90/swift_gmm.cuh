// The kernel. Weights are the tensor core's 64-row operand and tokens its n-sized one, so that few tokens
// waste nothing and every element of c is one chain of the same products in the same order whatever the tile
// is.
//
// One thread block per multiprocessor works through tiles of (features x rows) of c. One warp feeds a ring of
// stages, each a 128-byte slice of K of the tile's weights and tokens, through the copy engine; it runs ahead
// across tiles, so memory stays busy while the warpgroups, 64 features each, finish theirs.
#pragma once
#include <type_traits>

#include "core/error.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/sm90/swift_gmm.h"
#include "ops/cuda/sm90/tma.cuh"
#include "ops/cuda/sm90/wgmma.cuh"

namespace moge::ops::cuda::swift {

inline constexpr int kBlockFeatures = 64;  ///< of a warpgroup
inline constexpr int kBlockBytes = kBlockFeatures * kSwizzleBytes;
inline constexpr int kSteps = kSwizzleBytes / 32;  ///< products of a stage
inline constexpr int kSharedBytes = 227 * 1024;
inline constexpr int kAlignment = 1024;  ///< of a swizzled tile
/// Token tiles that are worked on side by side before the next weights: enough to read weights once while
/// tokens are few, few enough that tokens stay in L2 when they are many.
inline constexpr int kTokenTilesTogether = 16;

/// Scale and weight of a row of c.
struct RowFactors {
  float scale, weight;
};

/// Threads and shared memory of a thread block.
template <SwiftTile kTile>
struct Plan {
  static constexpr int kFeatures = shape_of(kTile).features;
  static constexpr int kRows = shape_of(kTile).rows;
  static constexpr int kWarpgroups = kFeatures / kBlockFeatures;  ///< of consumers; one more produces
  static constexpr int kThreads = kWarpgroups * 128 + 128;
  /// Registers of a thread: what launch bounds give to all, moved from the producers to the others.
  static constexpr int kLaunchRegisters = 65536 / kThreads / 8 * 8;
  static constexpr int kProducerRegisters = kWarpgroups == 4 ? 64 : 56;
  static constexpr int kConsumerRegisters = kWarpgroups == 4 ? 104 : 224;
  static_assert(kWarpgroups == 1 || kProducerRegisters + kWarpgroups * kConsumerRegisters <=
                                        (kWarpgroups + 1) * kLaunchRegisters);

  /// Rows of c that a warpgroup transposes at a time.
  static constexpr int kStagedRows = kWarpgroups == 4 && kRows > 32 ? 32 : kRows < 64 ? kRows : 64;
  static constexpr int kStageBytes = (kFeatures + kRows) * kSwizzleBytes;
  static constexpr int kStagedBytes = kStagedRows * kBlockFeatures * 2;
  static constexpr int kFactorBytes = kRows * static_cast<int>(sizeof(RowFactors));
  static constexpr int kMapBytes = (kSwiftMaxGroups + 4) * 4;
  static constexpr int kFixedBytes = kWarpgroups * (kStagedBytes + kFactorBytes) + 2 * kMapBytes;
  static constexpr int kStages = (kSharedBytes - kAlignment - kFixedBytes) / (kStageBytes + 16);
  static constexpr int kStagedAt = kStages * kStageBytes;
  static constexpr int kFactorsAt = kStagedAt + kWarpgroups * kStagedBytes;
  static constexpr int kTileStartAt = kFactorsAt + kWarpgroups * kFactorBytes;
  static constexpr int kRowStartAt = kTileStartAt + kMapBytes;
  static constexpr int kFullAt = kRowStartAt + kMapBytes;  ///< barriers: a stage has arrived
  static constexpr int kEmptyAt = kFullAt + kStages * 8;   ///< a stage has been used
  static constexpr int kBytes = kEmptyAt + kStages * 8 + kAlignment;
};

/// A place in the ring, and how often it was passed.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

struct Tile {
  int group;
  int row, rows;  ///< of c
  int feature;    ///< of the group
};

/// Counts tiles over the groups. Tiles of the same weights follow each other, so that these are read once.
struct TileMap {
  const int* tile_start;  // [G + 1], shared memory: a group's first tile
  const int* row_start;   // [G + 1], shared memory: offsets
  int feature_tiles;
  int group = 0;

  /// `index` never decreases from call to call.
  template <class P>
  __device__ Tile at(int index) {
    while (index >= tile_start[group + 1]) ++group;
    const int first_row = row_start[group];
    const int rows = row_start[group + 1] - first_row;
    const int token_tiles = (rows + P::kRows - 1) / P::kRows;
    int local = index - tile_start[group];
    const int batch = local / (kTokenTilesTogether * feature_tiles);
    local -= batch * kTokenTilesTogether * feature_tiles;
    const int together = min(kTokenTilesTogether, token_tiles - batch * kTokenTilesTogether);
    const int feature_tile = local / together;
    const int token_tile = batch * kTokenTilesTogether + local % together;
    // near equal tiles: a full one and a remainder of a few rows would take longer
    const int height = ((rows + token_tiles - 1) / token_tiles + 7) / 8 * 8;
    return {.group = group,
            .row = first_row + token_tile * height,
            .rows = min(height, rows - token_tile * height),
            .feature = feature_tile * P::kFeatures};
  }
};

/// Fills TileMap's arrays. All threads.
template <class P>
__device__ void count_tiles(const SwiftGmmParams& p, int feature_tiles, int* tile_start, int* row_start) {
  for (int g = static_cast<int>(threadIdx.x); g <= p.num_groups; g += P::kThreads)
    row_start[g] = p.offsets ? p.offsets[g] : g * p.num_rows;
  __syncthreads();
  if (threadIdx.x < 32) {
    int total = 0;
    for (int begin = 0; begin < p.num_groups; begin += 32) {
      const int g = begin + static_cast<int>(threadIdx.x);
      int sum =
          g < p.num_groups ? (row_start[g + 1] - row_start[g] + P::kRows - 1) / P::kRows * feature_tiles : 0;
      for (int distance = 1; distance < 32; distance *= 2) {
        const int lower = __shfl_up_sync(~0U, sum, distance);
        if (static_cast<int>(threadIdx.x) >= distance) sum += lower;
      }
      if (g < p.num_groups) tile_start[g + 1] = total + sum;
      total += __shfl_sync(~0U, sum, 31);
    }
    if (threadIdx.x == 0) tile_start[0] = 0;
  }
  __syncthreads();
}

/// A thread of the warpgroup that fills the ring. Weights and contiguous rows come by the copy engine, from
/// the first warp; rows that row_ids gathers by 16 bytes a thread, because the engine needs some 55 cycles a
/// row.
template <class P, int kElementBytes>
class Producer {
 public:
  __device__ Producer(const SwiftGmmParams& p, const SwiftMaps& maps, uint32_t shared)
      : p_(p), maps_(maps), shared_(shared), thread_(static_cast<int>(threadIdx.x) % 128) {}

  __device__ bool has_work() const { return thread_ < 32 || p_.row_ids; }

  __device__ void begin(const Tile& t) {
    tile_ = t;
    blocks_ = min(P::kWarpgroups, (p_.n - t.feature + kBlockFeatures - 1) / kBlockFeatures);
  }
  /// After wait_for_previous().
  __device__ void begin_rows() {
    if (!p_.row_ids) return;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      const int r = i * kRowsAtOnce + thread_ / 8;
      row_units_[i] = r < tile_.rows ? static_cast<uint32_t>(p_.row_ids[tile_.row + r]) *
                                           static_cast<uint32_t>(p_.k_bytes / 16)
                                     : 0;
    }
  }

  __device__ void weights(int stage, int block) const {
    if (thread_ >= 32) return;
    const uint32_t barrier = full(stage);
    const int row_bytes = p_.row_ids ? 0 : rounded_rows() * kSwizzleBytes;
    if (thread_ == 0)
      barrier_arrive_expect(barrier, static_cast<uint32_t>(blocks_ * kBlockBytes + row_bytes));
    __syncwarp();
    if (thread_ < blocks_)
      load_box(shared_ + stage * P::kStageBytes + thread_ * kBlockBytes, maps_.w,
               block * kSwizzleBytes / kElementBytes,
               tile_.group * p_.n + tile_.feature + thread_ * kBlockFeatures, barrier, evict_first());
  }
  __device__ void rows(int stage, int block) const {
    const uint32_t to = shared_ + stage * P::kStageBytes + P::kFeatures * kSwizzleBytes;
    if (p_.row_ids)
      gather(to, block, full(stage));
    else
      copy_rows(to, block, full(stage));
  }

 private:
  static constexpr int kRowsAtOnce = 16;  // of the warpgroup, eight threads each
  static constexpr int kThreadRows = (P::kRows + kRowsAtOnce - 1) / kRowsAtOnce;

  __device__ uint32_t full(int stage) const {
    return shared_ + P::kFullAt + stage * 8;
  }
  __device__ int rounded_rows() const {
    return (tile_.rows + 7) / 8 * 8;
  }

  __device__ void copy_rows(uint32_t to, int block, uint32_t barrier) const {
    if (thread_ >= 6 || (rounded_rows() & 8 << thread_) == 0) return;
    const int r = rounded_rows() >> (thread_ + 4) << (thread_ + 4);  // after the larger boxes
    load_box(to + r * kSwizzleBytes, maps_.a[thread_], block * kSwizzleBytes / kElementBytes, tile_.row + r,
             barrier, evict_last());
  }
  __device__ void gather(uint32_t to, int block, uint32_t barrier) const {
    const int chunk = thread_ % 8, first = thread_ / 8;
    const int k = block * kSwizzleBytes + chunk * 16;
    const char* const from = static_cast<const char*>(p_.a) + k;
    to += static_cast<uint32_t>(first * kSwizzleBytes + (chunk ^ first % 8) * 16);
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i)
      if (i * kRowsAtOnce + first < tile_.rows)
        load_16(to + i * kRowsAtOnce * kSwizzleBytes, from + uint64_t{row_units_[i]} * 16, k >= p_.k_bytes);
    barrier_arrive_after_loads(barrier);
  }

  const SwiftGmmParams& p_;
  const SwiftMaps& maps_;
  uint32_t shared_;
  int thread_;
  Tile tile_{};
  int blocks_ = 0;                        // of 64 features
  uint32_t row_units_[kThreadRows] = {};  // where rows of a begin, in units of 16 bytes
};

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
/// Stores kCount matrices of 8 x 8 16-bit elements transposed: of matrix i the row address of its column r
/// comes from thread 8 i + r, and each thread holds two elements of a row.
template <int kCount>
__device__ __forceinline__ void store_transposed(uint32_t address, const uint32_t (&m)[kCount]) {
  if constexpr (kCount == 4)
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
                 : "memory");
  else if constexpr (kCount == 2)
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(address), "r"(m[0]),
                 "r"(m[1])
                 : "memory");
  else
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(address), "r"(m[0])
                 : "memory");
}
__device__ __forceinline__ float silu(float x) {
  return __fdividef(x, 1.0F + __expf(-x));
}
__device__ __forceinline__ void warpgroup_barrier(int warpgroup) {
  asm volatile("bar.sync %0, 128;" ::"r"(warpgroup + 1) : "memory");
}

/// Turns a warpgroup's accumulators, 64 features x rows, into elements of c.
template <DType kType, class P>
struct Epilogue {
  const SwiftGmmParams& p;
  Tile tile;
  int warpgroup;
  const RowFactors* factors;  // [rows], shared memory
  uint8_t* staged;            // [P::kStagedRows, 64 or 32 features] bf16, shared memory

  __device__ int thread() const { return static_cast<int>(threadIdx.x) % 128; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % 32; }
  /// Of the warpgroup's 64, the thread's first; it also holds the one eight further.
  __device__ int feature() const { return thread() / 32 * 16 + lane() / 4; }

  /// v of ops/quant_matmul.h for the thread's two features of two rows.
  struct Values {
    float lo[2], hi[2];
    float weight[2];
  };
  struct Scales {
    float lo = 1, hi = 1, bias_lo = 0, bias_hi = 0;
  };
  __device__ Scales scales() const {
    Scales s;
    const int lo = tile.feature + warpgroup * kBlockFeatures + feature(), hi = lo + 8;
    if (p.w_scale) {
      const float* of_group = p.w_scale + static_cast<int64_t>(tile.group) * p.n;
      if (lo < p.n) s.lo = of_group[lo];
      if (hi < p.n) s.hi = of_group[hi];
    }
    if (p.bias) {
      if (lo < p.n) s.bias_lo = p.bias[lo];
      if (hi < p.n) s.bias_hi = p.bias[hi];
    }
    return s;
  }
  __device__ __forceinline__ static float value(uint32_t bits, float w_scale, float a_scale, float bias) {
    const float sum =
        kType == DType::kI8 ? static_cast<float>(static_cast<int>(bits)) : __uint_as_float(bits);
    return __fadd_rn(__fmul_rn(__fmul_rn(sum, w_scale), a_scale), bias);
  }
  /// d: the block of eight rows from row 8j.
  __device__ __forceinline__ Values values(const uint32_t* d, int j, const Scales& s) const {
    const float4 f = *reinterpret_cast<const float4*>(factors + j * 8 + lane() % 4 * 2);
    return {.lo = {value(d[0], s.lo, f.x, s.bias_lo), value(d[1], s.lo, f.z, s.bias_lo)},
            .hi = {value(d[2], s.hi, f.x, s.bias_hi), value(d[3], s.hi, f.z, s.bias_hi)},
            .weight = {f.y, f.w}};
  }

  template <int kRegisters>
  __device__ __forceinline__ void run(const uint32_t (&d)[kRegisters]) const {
    switch (p.output) {
      case SwiftOutput::kBF16:
        return store_staged<false>(d);
      case SwiftOutput::kSiluMulBF16:
        return store_staged<true>(d);
      case SwiftOutput::kF32:
        return store_f32(d);
    }
  }

  /// A thread's values are of two features, but neighbouring features lie side by side in c: the warpgroup
  /// transposes some rows in shared memory, swizzled in units of 16 bytes, then writes whole lines.
  template <bool kActivate, int kRegisters>
  __device__ __forceinline__ void store_staged(const uint32_t (&d)[kRegisters]) const {
    constexpr int kColumns = kRegisters * 2;
    constexpr int kPitch = kActivate ? kBlockFeatures : kBlockFeatures * 2;  // bytes of a staged row
    constexpr int kBlocks = kColumns >= 16 ? 2 : 1;                          // of 8 rows at once
    constexpr int kMatrices = kActivate ? kBlocks : kBlocks * 2;
    const Scales s = scales();
    const int warp = thread() / 32, matrix = lane() / 8, row_in_block = lane() % 8;
    const int unit = kActivate ? warp ^ row_in_block / 2 % 4 : (warp * 2 + matrix % 2) ^ row_in_block;
    const int block_of_matrix = (kActivate ? matrix : matrix / 2) % kBlocks;
    const uint32_t to = shared_address(staged) +
                        static_cast<uint32_t>((block_of_matrix * 8 + row_in_block) * kPitch + unit * 16);
#pragma unroll
    for (int begin = 0; begin < kColumns; begin += P::kStagedRows) {
      if (begin >= tile.rows) break;
      if (begin > 0) warpgroup_barrier(warpgroup);  // the rows before are on their way
#pragma unroll
      for (int j = begin / 8; j < kColumns / 8 && j < (begin + P::kStagedRows) / 8; j += kBlocks) {
        uint32_t m[kMatrices];
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
          const Values v = values(d + (j + b) * 4, j + b, s);
          if constexpr (kActivate) {
            m[b] = pack_bf16(silu(v.lo[0]) * v.hi[0] * v.weight[0], silu(v.lo[1]) * v.hi[1] * v.weight[1]);
          } else {
            m[b * 2] = pack_bf16(v.lo[0] * v.weight[0], v.lo[1] * v.weight[1]);
            m[b * 2 + 1] = pack_bf16(v.hi[0] * v.weight[0], v.hi[1] * v.weight[1]);
          }
        }
        store_transposed(to + static_cast<uint32_t>((j * 8 - begin) * kPitch), m);
      }
      warpgroup_barrier(warpgroup);
      constexpr int kRowsLeft = kColumns < P::kStagedRows ? kColumns : P::kStagedRows;
      write_lines<kActivate>(begin, min(tile.rows - begin, kRowsLeft));
    }
  }
  /// Staged rows to rows `begin`.. of the tile.
  template <bool kActivate>
  __device__ __forceinline__ void write_lines(int begin, int rows) const {
    constexpr int kUnits = kActivate ? 4 : 8;  // of 16 bytes in a row
    const int unit = thread() % kUnits;
    const int columns = kActivate ? p.n / 2 : p.n;
    const int column = (tile.feature + warpgroup * kBlockFeatures) / (kActivate ? 2 : 1) + unit * 8;
    uint16_t* const c = static_cast<uint16_t*>(p.c) + (tile.row + begin) * p.c_stride + column;
    const auto staged_unit = [&](int r) {
      return staged + (r * kUnits + (unit ^ (kActivate ? r / 2 % 4 : r % 8))) * 16;
    };
    if (column >= columns) return;
    if (p.c_vectors) {
#pragma unroll 4
      for (int r = thread() / kUnits; r < rows; r += 128 / kUnits)
        *reinterpret_cast<uint4*>(c + r * p.c_stride) = *reinterpret_cast<const uint4*>(staged_unit(r));
      return;
    }
#pragma unroll 1
    for (int r = thread() / kUnits; r < rows; r += 128 / kUnits)
#pragma unroll 1
      for (int i = 0; i < min(8, columns - column); ++i)
        c[r * p.c_stride + i] = reinterpret_cast<const uint16_t*>(staged_unit(r))[i];
  }

  template <int kRegisters>
  __device__ __forceinline__ void store_f32(const uint32_t (&d)[kRegisters]) const {
    const Scales s = scales();
    const int lo = tile.feature + warpgroup * kBlockFeatures + feature();
#pragma unroll
    for (int j = 0; j < kRegisters / 4; ++j) {
      const Values v = values(d + j * 4, j, s);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int r = j * 8 + lane() % 4 * 2 + i;
        float* const to = static_cast<float*>(p.c) + (tile.row + r) * p.c_stride + lo;
        if (r < tile.rows && lo < p.n) to[0] = v.lo[i] * v.weight[i];
        if (r < tile.rows && lo + 8 < p.n) to[8] = v.hi[i] * v.weight[i];
      }
    }
  }
};

/// Calls f with the smallest of the sizes that is at least `rows`, as a constant.
template <int kSize, int... kLarger, class F>
__device__ __forceinline__ void with_columns(int rows, F&& f) {
  if constexpr (sizeof...(kLarger) == 0) {
    f(std::integral_constant<int, kSize>{});
  } else {
    if (rows <= kSize) return f(std::integral_constant<int, kSize>{});
    with_columns<kLarger...>(rows, f);
  }
}
template <int kRows, class F>
__device__ __forceinline__ void with_columns_of(int rows, F&& f) {
  if constexpr (kRows == 16) with_columns<8, 16>(rows, f);
  if constexpr (kRows == 64) with_columns<8, 16, 32, 48, 64>(rows, f);
  if constexpr (kRows == 128) with_columns<8, 16, 32, 48, 64, 80, 96, 112, 128>(rows, f);
  if constexpr (kRows == 256) with_columns<32, 64, 96, 128, 144, 160, 176, 192, 208, 224, 240, 256>(rows, f);
}

/// A warpgroup's side of the ring.
template <DType kType, class P>
struct Consumer {
  uint32_t shared;
  int warpgroup;
  bool gathered;  ///< rows did not come by the copy engine
  RingPosition<P::kStages> ring;

  /// d += the first kCount products of the ring's next stage.
  template <int kCount, int kRegisters>
  __device__ __forceinline__ void multiply(uint32_t (&d)[kRegisters]) {
    const uint32_t stage = shared + ring.stage * P::kStageBytes;
    const uint64_t w = operand_descriptor(stage + warpgroup * kBlockBytes);
    const uint64_t a = operand_descriptor(stage + P::kFeatures * kSwizzleBytes);
    barrier_wait(shared + P::kFullAt + ring.stage * 8, ring.parity);
    if (gathered) fence_async_proxy();
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kCount; ++step) wgmma<kType>(d, w + 2 * step, a + 2 * step);
    wgmma_commit();
  }
  __device__ __forceinline__ void release(int stage) const {
    if (threadIdx.x % 32 == 0) barrier_arrive(shared + P::kEmptyAt + stage * 8);
  }

  /// d = the sum over K of the warpgroup's 64 features x 2 * kRegisters rows. The products stay in flight
  /// while the next stage is awaited.
  template <int kRegisters>
  __device__ __forceinline__ void accumulate(uint32_t (&d)[kRegisters], int full_blocks, bool half_block) {
#pragma unroll
    for (uint32_t& x : d) x = 0;
    int previous = -1;
    for (int block = 0; block < full_blocks; ++block) {
      multiply<kSteps>(d);
      wgmma_wait<1>();
      if (previous >= 0) release(previous);
      previous = ring.stage;
      ring.advance();
    }
    wgmma_wait<0>();
    if (previous >= 0) release(previous);
    if (half_block) {
      multiply<kSteps / 2>(d);
      wgmma_wait<0>();
      release(ring.stage);
      ring.advance();
    }
  }
};

template <DType kType, SwiftTile kTile>
__global__ __launch_bounds__(Plan<kTile>::kThreads,
                             1) void swift_gmm_kernel(const __grid_constant__ SwiftMaps maps,
                                                      const __grid_constant__ SwiftGmmParams p) {
  using P = Plan<kTile>;
  extern __shared__ uint8_t dynamic[];
  uint8_t* const memory = dynamic + (kAlignment - shared_address(dynamic) % kAlignment) % kAlignment;
  const uint32_t shared = shared_address(memory);
  int* const tile_start = reinterpret_cast<int*>(memory + P::kTileStartAt);
  int* const row_start = reinterpret_cast<int*>(memory + P::kRowStartAt);
  const int feature_tiles = (p.n + P::kFeatures - 1) / P::kFeatures;
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;

  if (threadIdx.x == 0) {
    prefetch_map(maps.w);
    for (int stage = 0; stage < P::kStages; ++stage) {
      barrier_init(shared + P::kFullAt + stage * 8, p.row_ids ? 1 + 128 : 1);
      barrier_init(shared + P::kEmptyAt + stage * 8, P::kWarpgroups * 4);
    }
    fence_barrier_init();
  }
  // Without offsets the tiles are known now, and the first weights are fetched while the previous kernel
  // ends.
  if (p.offsets) wait_for_previous();
  count_tiles<P>(p, feature_tiles, tile_start, row_start);
  TileMap map{tile_start, row_start, feature_tiles};
  const int num_tiles = tile_start[p.num_groups];
  const int first = static_cast<int>(blockIdx.x), stride = static_cast<int>(gridDim.x);

  if (warpgroup == P::kWarpgroups) {
    if constexpr (P::kWarpgroups > 1)
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(P::kProducerRegisters));
    Producer<P, static_cast<int>(size_of(kType))> producer(p, maps, shared);
    if (!producer.has_work()) return;
    RingPosition<P::kStages> ring;
    const int num_blocks = p.full_blocks + (p.half_block ? 1 : 0);
    int ahead = 0;  // weights that are on their way already
    if (!p.offsets) {
      if (first < num_tiles) {
        producer.begin(map.at<P>(first));
        for (; ahead < min(P::kStages, num_blocks); ++ahead) producer.weights(ahead, ahead);
      }
      wait_for_previous();
    }
    let_next_start();
    for (int tile = first; tile < num_tiles; tile += stride) {
      producer.begin(map.at<P>(tile));
      producer.begin_rows();
      for (int block = 0; block < num_blocks; ++block) {
        if (tile != first || block >= ahead) {
          barrier_wait(shared + P::kEmptyAt + ring.stage * 8, ring.parity ^ 1);
          producer.weights(ring.stage, block);
        }
        producer.rows(ring.stage, block);
        ring.advance();
      }
    }
  } else {
    if constexpr (P::kWarpgroups > 1)
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(P::kConsumerRegisters));
    const int thread = static_cast<int>(threadIdx.x) % 128;
    RowFactors* const factors =
        reinterpret_cast<RowFactors*>(memory + P::kFactorsAt + warpgroup * P::kFactorBytes);
    uint8_t* const staged = memory + P::kStagedAt + warpgroup * P::kStagedBytes;
    Consumer<kType, P> consumer{shared, warpgroup, p.row_ids != nullptr, {}};
    if (!p.offsets) wait_for_previous();
    for (int index = first; index < num_tiles; index += stride) {
      const Tile tile = map.at<P>(index);
      constexpr int kThreadRows = (P::kRows + 127) / 128;
      RowFactors mine[kThreadRows];  // read now, needed when the sums are done
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
        const int r = i * 128 + thread;
        mine[i] = {1, 1};
        if (r >= tile.rows) continue;
        const int row = tile.row + r;
        if (p.a_scale) mine[i].scale = p.a_scale[p.row_ids ? p.row_ids[row] : row];
        if (p.row_weight) mine[i].weight = p.row_weight[row];
      }
      with_columns_of<P::kRows>(tile.rows, [&](auto columns) {
        uint32_t d[decltype(columns)::value / 2];
        consumer.accumulate(d, p.full_blocks, p.half_block);
        warpgroup_barrier(warpgroup);  // everyone is done with the tile before
#pragma unroll
        for (int i = 0; i < kThreadRows; ++i)
          if (i * 128 + thread < P::kRows) factors[i * 128 + thread] = mine[i];
        warpgroup_barrier(warpgroup);
        Epilogue<kType, P>{p, tile, warpgroup, factors, staged}.run(d);
      });
    }
  }
}

template <DType kType, SwiftTile kTile>
void launch_tile(const ExecContext& ctx, const SwiftMaps& maps, const SwiftGmmParams& params) {
  using P = Plan<kTile>;
  launch(ctx, "quant_matmul", swift_gmm_kernel<kType, kTile>,
         {.grid = dim3(static_cast<unsigned>(ctx.backend->info().num_sms)),
          .block = dim3(P::kThreads),
          .shared_bytes = P::kBytes},
         maps, params);
}

}  // namespace moge::ops::cuda::swift

namespace moge::ops::cuda {

template <DType kType>
void launch_swift_gmm(const ExecContext& ctx, SwiftTile tile, const SwiftMaps& maps,
                      const SwiftGmmParams& params) {
  switch (tile) {
    case SwiftTile::k64x16:
      return swift::launch_tile<kType, SwiftTile::k64x16>(ctx, maps, params);
    case SwiftTile::k64x64:
      return swift::launch_tile<kType, SwiftTile::k64x64>(ctx, maps, params);
    case SwiftTile::k256x16:
      return swift::launch_tile<kType, SwiftTile::k256x16>(ctx, maps, params);
    case SwiftTile::k256x64:
      return swift::launch_tile<kType, SwiftTile::k256x64>(ctx, maps, params);
    case SwiftTile::k256x128:
      return swift::launch_tile<kType, SwiftTile::k256x128>(ctx, maps, params);
    case SwiftTile::k128x256:
      return swift::launch_tile<kType, SwiftTile::k128x256>(ctx, maps, params);
  }
}

}  // namespace moge::ops::cuda
