// SwiftGMM's epilogue: from sums to elements of c.
#pragma once
#include <iterator>

#include "ops/cuda/mma.cuh"
#include "ops/cuda/sm90/swift_plan.cuh"

namespace moge::ops::cuda::swift {

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
  const SwiftMaps& maps;
  const typename P::Factors& factors;
  uint8_t* staged;  // [P::kStagedRows, 64 or 32 features] bf16, shared memory
  uint32_t kept;    // the same again, with P::kStoresBoxes
  Tile tile;
  int warpgroup;

  __device__ int thread() const { return static_cast<int>(threadIdx.x) % 128; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % 32; }
  /// Of the tile's, the thread's first; it also holds the one eight further.
  __device__ int feature() const { return warpgroup * kBlockFeatures + thread() / 32 * 16 + lane() / 4; }

  struct Scales {
    float lo, hi, bias_lo, bias_hi;
  };
  __device__ __forceinline__ Scales scales() const {
    const int f = feature();
    return {factors.w_scale[f], factors.w_scale[f + 8], factors.bias[f], factors.bias[f + 8]};
  }
  __device__ __forceinline__ static float value(uint32_t bits, float w_scale, float factor, float bias) {
    const float sum =
        kType == DType::kI8 ? static_cast<float>(static_cast<int>(bits)) : __uint_as_float(bits);
    return fmaf(sum * w_scale, factor, bias);
  }
  /// Of the thread's two features in two rows: v of ops/quant_matmul.h, and v * row_weight (for up, or what
  /// is not activated). A bias and a row_weight do not come together.
  struct Values {
    float lo[2], hi[2];
  };
  /// d: the block of eight rows from row 8j.
  template <bool kActivate>
  __device__ __forceinline__ Values values(const uint32_t* d, int j, const Scales& s) const {
    const float4 f = *reinterpret_cast<const float4*>(factors.rows + j * 8 + lane() % 4 * 2);
    return {.lo = {value(d[0], s.lo, kActivate ? f.x : f.y, s.bias_lo),
                   value(d[1], s.lo, kActivate ? f.z : f.w, s.bias_lo)},
            .hi = {value(d[2], s.hi, f.y, s.bias_hi), value(d[3], s.hi, f.w, s.bias_hi)}};
  }

  static constexpr int kRegisters = P::kRows / 2;
  using Sums = uint32_t[kRegisters];
  /// Rows that do not exist are left out, so many at a time.
  static constexpr int kRowsTogether = P::kRows < 128 ? 16 : 32;

  __device__ __forceinline__ void run(const Sums& d) const {
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
  /// transposes some rows in shared memory, swizzled in units of 16 bytes, then writes whole lines, or has
  /// the copy engine write them: from two places in turns, each with room for two turns of activated rows.
  template <bool kActivate>
  __device__ __forceinline__ void store_staged(const Sums& d) const {
    constexpr int kPitch = kActivate ? kBlockFeatures : kBlockFeatures * 2;  // bytes of a staged row
    constexpr int kBlocks = 2;                                               // of 8 rows at once
    constexpr int kMatrices = kActivate ? kBlocks : kBlocks * 2;
    const Scales s = scales();
    const int warp = thread() / 32, matrix = lane() / 8, row_in_block = lane() % 8;
    const int unit = kActivate ? warp ^ row_in_block / 2 % 4 : (warp * 2 + matrix % 2) ^ row_in_block;
    const int block_of_matrix = (kActivate ? matrix : matrix / 2) % kBlocks;
    const auto in_rows = static_cast<uint32_t>((block_of_matrix * 8 + row_in_block) * kPitch + unit * 16);
    const bool boxes = P::kStoresBoxes && p.stores_boxes;
#pragma unroll
    for (int begin = 0; begin < P::kRows; begin += P::kStagedRows) {
      if (begin >= tile.rows) break;
      constexpr uint32_t kTurnBytes = P::kStagedRows * kPitch;
      const int turn = begin / P::kStagedRows;
      const uint32_t rows_at = !boxes ? shared_address(staged)
                                      : (turn % 2 == 0 ? shared_address(staged) : kept) +
                                            (kActivate && turn >= 2 ? kTurnBytes : 0);
      const uint32_t to = rows_at + in_rows;
      if (boxes && !kActivate && turn >= 2 && warp == 0) wait_for_reads_of_stores<1>();
      // The rows before are on their way, or (of kept) all warps have multiplied.
      if (!boxes || turn == 0 || (!kActivate && turn >= 2)) warpgroup_barrier(warpgroup);
#pragma unroll
      for (int j = begin / 8; j < (begin + P::kStagedRows) / 8; j += kBlocks) {
        if (j * 8 % kRowsTogether == 0 && j * 8 >= tile.rows) break;
        uint32_t m[kMatrices];
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
          const Values v = values<kActivate>(d + (j + b) * 4, j + b, s);
          if constexpr (kActivate) {
            m[b] = pack<DType::kBF16>(silu(v.lo[0]) * v.hi[0], silu(v.lo[1]) * v.hi[1]);
          } else {
            m[b * 2] = pack<DType::kBF16>(v.lo[0], v.lo[1]);
            m[b * 2 + 1] = pack<DType::kBF16>(v.hi[0], v.hi[1]);
          }
        }
        store_transposed(to + static_cast<uint32_t>((j * 8 - begin) * kPitch), m);
      }
      if (boxes) fence_async_proxy();
      warpgroup_barrier(warpgroup);
      const int rows = min(tile.rows - begin, P::kStagedRows);
      if (!boxes)
        write_lines<kActivate>(begin, rows);
      else if (warp == 0)
        store_boxes<kActivate>(rows_at, begin, rows);
    }
  }
  /// First of the warpgroup's columns of c.
  template <bool kActivate>
  __device__ int first_column() const {
    return (tile.feature + warpgroup * kBlockFeatures) / (kActivate ? 2 : 1);
  }
  /// By the first warp: rows to rows `begin`.. of the tile, in as few boxes as their number has bits, because
  /// the next rows may be another tile's.
  template <bool kActivate>
  __device__ __forceinline__ void store_boxes(uint32_t rows_at, int begin, int rows) const {
    constexpr int kPitch = kActivate ? kBlockFeatures : kBlockFeatures * 2;
    const int bit = lane(), column = first_column<kActivate>();
    const bool exists = tile.feature + warpgroup * kBlockFeatures < p.n;
    if (exists && bit < static_cast<int>(std::size(maps.c)) && (rows & 1 << bit) != 0) {
      const int r = rows >> (bit + 1) << (bit + 1);  // after the larger boxes
      store_box(maps.c[bit], column, tile.row + begin + r, rows_at + static_cast<uint32_t>(r * kPitch));
    }
    end_group_of_stores();  // of each lane, even of none: all lanes count turns alike
  }
  /// Staged rows to rows `begin`.. of the tile.
  template <bool kActivate>
  __device__ __forceinline__ void write_lines(int begin, int rows) const {
    constexpr int kUnits = kActivate ? 4 : 8;  // of 16 bytes in a row
    const int unit = thread() % kUnits;
    const int columns = kActivate ? p.n / 2 : p.n;
    const int column = first_column<kActivate>() + unit * 8;
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

  __device__ __forceinline__ void store_f32(const Sums& d) const {
    const Scales s = scales();
    const int lo = tile.feature + feature();
    // Its multiples must not be computed before the products: they need registers.
    int64_t stride = p.c_stride;
    asm volatile("" : "+l"(stride));
#pragma unroll
    for (int j = 0; j < kRegisters / 4; ++j) {
      if (j * 8 % kRowsTogether == 0 && j * 8 >= tile.rows) break;
      const Values v = values<false>(d + j * 4, j, s);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int r = j * 8 + lane() % 4 * 2 + i;
        float* const to = static_cast<float*>(p.c) + (tile.row + r) * stride + lo;
        if (r < tile.rows && lo < p.n) to[0] = v.lo[i];
        if (r < tile.rows && lo + 8 < p.n) to[8] = v.hi[i];
      }
    }
  }
};

}  // namespace moge::ops::cuda::swift
