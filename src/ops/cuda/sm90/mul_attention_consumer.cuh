// The warps of MulAttention that calculate. Scores are K q^T: a warp takes 16 of a tile's positions, all
// query rows. Values are V^T p^T: a warp takes its part of the head, all positions. So a chunk needs two
// barriers between them and no exchange of values. With lane = 4g + t a thread's query rows are 8n + 2t and
// 8n + 2t + 1.
//
// K's scales multiply the scores. V's are over the largest of those that the row sees in the chunk, times the
// probabilities, and the largest multiplies the chunk's values.
//
// With e4m3, which is unpacked to f16 exactly, and f16 pages the queries become f16 over 16, which only
// flushes elements below 2^-18 and overflows beyond 2^19, and the probabilities f16.
//
// Signed bytes are multiplied as they are, because unpacking them took a third of the instructions: a row of
// queries becomes integers of 16 bits, in units of a power of two for which elements down to 2^-7 of its
// largest are exact, and probabilities times V's scales integers of 16 bits, 65535 for the chunk's largest
// scale. Both in two digits, a byte each, and sums of both are exact. So one position whose scale is 2^n
// times the others' leaves these 16 - n bits, though it may weigh nothing: bf16 results notice from n = 7 on.
// A NaN of a query does not come through; the residual stream has it.
#pragma once
#include <cuda_fp16.h>

#include "ops/cuda/sm90/barrier.cuh"
#include "ops/cuda/sm90/mul_attention.cuh"
#include "ops/cuda/sm90/mul_attention_combine.cuh"

namespace moge::ops::cuda {

template <class Config>
class MulAttentionConsumer {
 public:
  __device__ MulAttentionConsumer(const MulAttentionParams& a, const MulAttentionShared<Config>& layout,
                                  uint8_t* memory)
      : a_(a),
        layout_(layout),
        memory_(memory),
        shared_(shared_address(memory)),
        scale_(a.scale_log2 * (kHalves ? kQueryDivisor : 1.0F)) {
#pragma unroll
    for (int i = 0; i < 2 * kN; ++i)
      lags_[i / 4] |= static_cast<uint32_t>(max(a.query_rows - 1 - (i / 2 * 8 + 2 * t_ + i % 2) / a.G, 0))
                      << (i % 4 * 8);
  }

  __device__ void run(const Plan& plan, MulAttentionSchedule& schedule) {
    int to_merge = 0;
    for (;;) {
      const Unit& u = wait_unit();
      if (uniform(u.id) < 0) break;
      start();
      const int length = uniform(u.length), first = uniform(u.first), end = uniform(u.end);
      for (int c = first; c < end; ++c) {
        if ((c + 1) * kChunkPositions <= length - a_.query_rows + 1)
          add_chunk<true>(length, c);
        else
          add_chunk<false>(length, c);
        if (c + 1 == end || (c + 1) % kChunksPerSpan == 0) finish_span(plan, u, c);
      }
      if (u.count == 1) {
        store_result(u);
      } else {
        if (first == 0) store_part(plan, u, 0);
        count_unit(u, schedule, to_merge);
      }
      release_unit();
    }
    merge(plan, schedule, to_merge);
  }

 private:
  using Tile = typename Config::Tile;
  static constexpr int kWarps = Config::kWarps, kColumns = Config::kColumns, kTile = Config::kTile;
  static constexpr int kTiles = Config::kTilesPerChunk;
  static constexpr bool kQuantised = Config::kQuantised;
  static constexpr bool kHalves = Config::kOperand == DType::kF16;
  static constexpr bool kIntegers = Config::kOperand == DType::kI8;
  using Sum = std::conditional_t<kIntegers, int, float>;
  static constexpr int kN = kColumns / 8;              // blocks of query rows
  static constexpr int kK = Config::kDh / 32;          // pairs of steps along the head
  static constexpr int kTileWarps = kTile / 16;        // that calculate a tile's scores
  static constexpr int kScored = kWarps / kTileWarps;  // tiles whose scores are calculated at a time
  static constexpr int kScores = kTiles / kScored;     // blocks of 16 positions of a chunk, a warp's
  /// Such blocks that are under way at once: tiles of bytes are small, and unpacking takes long.
  static constexpr int kAtOnce = kQuantised && !(kIntegers && kN > 1) ? 2 : 1;
  static constexpr bool kHoldQueries = kN == 1;
  /// Of values: of each digit of the probabilities, or two in turns, unless several blocks of rows are enough
  /// under way.
  static constexpr int kSums = kIntegers || kN == 1 ? 2 : 1;
  static constexpr float kQueryDivisor = 16;
  static constexpr int kDigit = 256;
  static constexpr float kCertain = kDigit * kDigit - 1;  // a probability of 1, as an integer
  static_assert(int64_t{kChunkPositions} * 128 * (kDigit * kDigit - 1) <= INT32_MAX);  // a chunk's values
  static constexpr float kInteger = 0x1p23F;  // plus a smaller number: that as an integer, in the last bits

  /// What the block's threads stored before they met comes first, what they read after they meet again last.
  static __device__ __forceinline__ int add_in_order(int* to, int x) {
    int before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], %2;" : "=r"(before) : "l"(to), "r"(x) : "memory");
    return before;
  }
  static __device__ __forceinline__ void sync() {
    asm volatile("bar.sync 1, %0;" ::"n"(kWarps * 32) : "memory");
  }
  __device__ float* floats(int offset) const {
    return reinterpret_cast<float*>(memory_ + offset);
  }
  __device__ int query_rows_at() const {
    return layout_.q + query_at_.slot * kColumns * Config::kQueryRow;
  }

  /// B operands of 32 elements along the head: two of each digit, or of two steps. e4m3 keys come four
  /// adjacent elements a lane.
  __device__ __forceinline__ void load_query(uint32_t (&into)[4], int n, int k) const {
    const uint32_t rows = shared_ + query_rows_at() + n * 8 * Config::kQueryRow;
    if constexpr (kIntegers) {
      load_matrices(into, rows + (lane_ & 7) * Config::kQueryRow + (lane_ >> 4) * Config::kDh +
                              (2 * k + (lane_ >> 3) % 2) * 16);
    } else if constexpr (kQuantised) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                     : "=r"(into[2 * i]), "=r"(into[2 * i + 1])
                     : "r"(rows + g_ * Config::kQueryRow + (32 * k + 16 * i + 4 * t_) * 2));
      }
    } else {
      load_matrices(into, rows + (lane_ & 7) * Config::kQueryRow + (4 * k + (lane_ >> 3)) * 16);
    }
  }

  /// As the compiler does not know of a value from shared memory: the same in all lanes.
  static __device__ __forceinline__ int uniform(int x) {
    return __shfl_sync(~0U, x, 0);
  }

  /// The next unit, when its queries are here. It stays in shared memory until release_unit().
  __device__ const Unit& wait_unit() const {
    barrier_wait(shared_ + layout_.query_full(query_at_.slot), query_at_.round);
    return reinterpret_cast<const Unit*>(memory_ + layout_.unit_slots)[query_at_.slot];
  }

  /// Takes the unit's queries; nothing is seen yet.
  __device__ void start() {
    if constexpr (kHalves) {
      auto* rows = reinterpret_cast<__nv_bfloat162*>(memory_ + query_rows_at());
      for (int i = threadIdx.x; i < a_.R() * Config::kDh / 2; i += kWarps * 32) {
        __nv_bfloat162& pair = rows[i / (Config::kDh / 2) * (Config::kQueryRow / 4) + i % (Config::kDh / 2)];
        const float2 x = __bfloat1622float2(pair);
        reinterpret_cast<uint32_t&>(pair) = pack<DType::kF16>(x.x / kQueryDivisor, x.y / kQueryDivisor);
      }
      sync();
    } else if constexpr (kIntegers) {
      for (int r = warp_; r < kColumns; r += kWarps) digits_of_query(r);
      sync();
    }
    if constexpr (kHoldQueries) {
#pragma unroll
      for (int k = 0; k < kK; ++k)
#pragma unroll
        for (int n = 0; n < kN; ++n) load_query(q_[k][n], n, k);
    }
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      state_[n][0] = state_[n][1] = SoftmaxState{};
      o_[n][0] = o_[n][1] = o_[n][2] = o_[n][3] = 0;
    }
  }
  /// Turns row r of the unit's queries from bf16s into its elements' upper digits, signed, and then their
  /// lower ones, not signed. Its unit times scale_ goes to query_units.
  __device__ void digits_of_query(int r) const {
    constexpr int kElements = Config::kDh / 32;  // of a lane
    uint8_t* const row = memory_ + query_rows_at() + r * Config::kQueryRow;
    float x[kElements], largest = 0x1p-100F;
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      x[i] = __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(row)[lane_ * kElements + i]);
      largest = fmaxf(largest, fabsf(x[i]));
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0U, largest, d));
    // |x| < 2^(e + 1), and a bf16 of 8 bits is less than that by 2^(e - 7): in this unit at most 2^15 - 2^7.
    const float power = __uint_as_float(__float_as_uint(largest) & 0x7f800000U);  // 2^e
    if (lane_ == 0) floats(layout_.query_units)[r] = power * 0x1p-14F * scale_;
    const float inverse = 0x1p14F / power;
    __syncwarp();  // all lanes have read
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      const int whole = __float2int_rn(x[i] * inverse);
      row[lane_ * kElements + i] = static_cast<uint8_t>(whole >> 8);
      row[Config::kDh + lane_ * kElements + i] = static_cast<uint8_t>(whole);
    }
  }
  __device__ void release_unit() {
    if constexpr (kHalves || kIntegers) asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    barrier_arrive(shared_ + layout_.query_empty(query_at_.slot));
    query_at_.next(kQueryStages);
  }

  /// Waits for the next `count` tiles of the ring, at most kMost, and says where they are.
  template <int kMost>
  __device__ __forceinline__ void wait_tiles(uint32_t (&tiles)[kMost], int count) const {
    RingPosition at = tile_at_;
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
      if (i >= count) break;
      barrier_wait(shared_ + layout_.full(at.slot), at.round);
      tiles[i] = shared_ + layout_.ring + at.slot * Tile::kBytes;
      at.next(layout_.stages);
    }
  }
  /// All lanes arrive, which costs nothing that can be measured: racecheck does not see that a warp's other
  /// lanes have read when one of them arrives for all.
  template <int kMost>
  __device__ __forceinline__ void release_tiles(int count) {
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
      if (i >= count) break;
      barrier_arrive(shared_ + layout_.empty(tile_at_.slot));
      tile_at_.next(layout_.stages);
    }
  }
  /// Which of the tiles that are scored at a time is the warp's, and its first row there.
  __device__ __forceinline__ int tile_of_warp() const {
    return kScored == 1 ? 0 : warp_ / kTileWarps;
  }
  __device__ __forceinline__ int row_of_warp() const {
    return warp_ % kTileWarps * 16;
  }
  /// The first of the positions of s_[i] in the chunk.
  __device__ __forceinline__ int score_position(int i) const {
    return (i * kScored + tile_of_warp()) * kTile + row_of_warp();
  }

  /// What the sums [..][e] of both digits, or of the one number, or of two in turns, are together.
  template <int kCount>
  static __device__ __forceinline__ float total(const Sum (&sums)[kCount][4], int e) {
    if constexpr (kIntegers)
      return static_cast<float>(sums[0][e] * kDigit + sums[1][e]);
    else if constexpr (kCount == 2)
      return __fadd_rn(sums[0][e], sums[1][e]);
    else
      return sums[0][e];
  }

  /// s_[first ...] = scores of the chunk's next `count` tiles, times log2 e; the tiles are taken from the
  /// ring.
  template <bool kWhole>
  __device__ __forceinline__ void score_tiles(int first, int count) {
    constexpr int kMost = kAtOnce * kScored;
    constexpr int kDigits = kIntegers ? 2 : 1;
    uint32_t tiles[kMost];
    wait_tiles(tiles, count);
    Sum sums[kAtOnce][kN][kDigits][4] = {};
    const int row = row_of_warp() + (lane_ & 15);
    const auto tile = [&](int i) { return tiles[i * kScored + (tile_of_warp() == 0 ? 0 : kScored - 1)]; };
    const auto has = [&](int i) { return kWhole || i * kScored + tile_of_warp() < count; };
#pragma unroll
    for (int k = 0; k < kK; ++k) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (!has(i)) break;
        uint32_t keys[2][4];
        if constexpr (kQuantised) {
          uint32_t(&raw)[4] = keys[0];
          load_matrices(raw, Tile::at(tile(i), row, lane_ >> 4) ^ (k * 32));  // chunks 2 k and 2 k + 1
          if constexpr (!kIntegers) {
            const uint32_t bytes[4] = {raw[0], raw[1], raw[2], raw[3]};
#pragma unroll
            for (int j = 0; j < 2; ++j) {
              unpack_fp8(bytes[2 * j], keys[j][0], keys[j][2]);
              unpack_fp8(bytes[2 * j + 1], keys[j][1], keys[j][3]);
            }
          }
        } else {
#pragma unroll
          for (int j = 0; j < 2; ++j)
            load_matrices(keys[j], Tile::at(tile(i), row, 4 * k + 2 * j + (lane_ >> 4)));
        }
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          uint32_t reloaded[4];
          if constexpr (!kHoldQueries) load_query(reloaded, n, k);
          const uint32_t(&b)[4] = kHoldQueries ? q_[kHoldQueries ? k : 0][n] : reloaded;
          if constexpr (kIntegers) {
            mma_bytes<false>(sums[i][n][0], keys[0], b[0], b[1]);
            mma_bytes<true>(sums[i][n][1], keys[0], b[2], b[3]);
          } else {
            mma<Config::kOperand>(sums[i][n][0], keys[0], b[0], b[1]);
            mma<Config::kOperand>(sums[i][n][0], keys[1], b[2], b[3]);
          }
        }
      }
    }
    RingPosition at = tile_at_;
    if (tile_of_warp() > 0) at.next(layout_.stages);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (!has(i)) break;
      float k_scale[2] = {scale_, scale_};
      if constexpr (kQuantised) {
        const float* scales = floats(layout_.scales + at.slot * Config::kScaleBytes) + row_of_warp() + g_;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          k_scale[h] = kIntegers ? scales[8 * h] : k_scale[h] * scales[8 * h];
          v_scale_[first + i][h] = scales[8 * h + kTile];
        }
#pragma unroll
        for (int j = 0; j < kScored; ++j) at.next(layout_.stages);
      }
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        float2 unit = {1, 1};
        if constexpr (kIntegers)
          unit = reinterpret_cast<const float2*>(floats(layout_.query_units))[4 * n + t_];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float factor = k_scale[j / 2] * (j % 2 == 0 ? unit.x : unit.y);
          s_[first + i][n][j] = total(sums[i][n], j) * factor;
        }
      }
    }
    release_tiles<kMost>(count);
  }

  /// How many positions a row is behind its sequence's last.
  __device__ __forceinline__ int lag(int i) const {
    return static_cast<int>(lags_[i / 4] >> (i % 4 * 8) & 0xffU);
  }

  /// A query row's numbers that a chunk gives; V's scales are over v_scale.
  struct ChunkRow {
    float m, l, v_scale;
  };

  /// Turns s_ into weights of the values, in shared memory.
  template <bool kWhole>
  __device__ __forceinline__ void softmax(int length, int chunk, ChunkRow (&rows)[kN][2]) {
    const auto over_positions = [](float x, auto combine) {  // of this warp
#pragma unroll
      for (int d = 4; d < 32; d *= 2) x = combine(x, __shfl_xor_sync(~0U, x, d));
      return x;
    };
    // [columns, warps]: the warps' numbers in turn.
    const auto over_warps = [this](int array, int column, float x, auto combine) {
      const auto* of = reinterpret_cast<const float4*>(floats(array) + column * kWarps);
#pragma unroll
      for (int w = 0; w < kWarps / 4; ++w) {
        const float4 y = of[w];
        x = combine(combine(combine(combine(x, y.x), y.y), y.z), y.w);
      }
      return x;
    };
    const auto larger = [](float x, float y) { return fmaxf(x, y); };
    const auto add = [](float x, float y) { return __fadd_rn(x, y); };
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        // Row i of n sees positions 0 .. length - n + i. Rows that fill up the operand: anything.
        const int column = 8 * n + 2 * t_ + j;
        const int visible = length - lag(2 * n + j) - chunk * kChunkPositions;
        const auto sees = [&](int i, int h) { return kWhole || score_position(i) + g_ + 8 * h < visible; };
        float m = -INFINITY;
#pragma unroll
        for (int i = 0; i < kScores; ++i) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float& score = s_[i][n][2 * h + j];
            if (!sees(i, h)) score = -INFINITY;
            m = fmaxf(m, score);
          }
        }
        m = over_positions(m, larger);
        rows[n][j] = {m, 0, 0};
        if (g_ == 0) floats(layout_.maxima)[column * kWarps + warp_] = m;
        if constexpr (kQuantised) {  // the same for all rows when they see all
          if (kWhole && (n > 0 || j > 0)) continue;
          float v_scale = 0;
#pragma unroll
          for (int i = 0; i < kScores; ++i)
#pragma unroll
            for (int h = 0; h < 2; ++h) v_scale = fmaxf(v_scale, sees(i, h) ? v_scale_[i][h] : 0.0F);
          v_scale = over_positions(v_scale, larger);
          if (g_ == 0) floats(layout_.v_maxima)[column * kWarps + warp_] = v_scale;
        }
      }
    }
    sync();
    float inverse = 0;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int column = 8 * n + 2 * t_ + j;
        ChunkRow& row = rows[n][j];
        row.m = over_warps(layout_.maxima, column, row.m, larger);
        if constexpr (kQuantised)
          row.v_scale = kWhole && (n > 0 || j > 0)
                            ? rows[0][0].v_scale
                            : over_warps(layout_.v_maxima, kWhole ? 2 * t_ : column, 0, larger);
        const float reference = row.m == -INFINITY ? 0.0F : row.m;
        if (!(kWhole && (n > 0 || j > 0)))
          inverse = row.v_scale > 1e-30F ? reciprocal_approx(row.v_scale) * (kIntegers ? kCertain : 1.0F) : 0;
        float sum = 0;
#pragma unroll
        for (int i = 0; i < kScores; ++i) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float& p = s_[i][n][2 * h + j];
            p = exp2_approx(p - reference);
            sum = __fadd_rn(sum, p);
            // Scales of positions past the end may be anything.
            if constexpr (kQuantised) {
              const float factor = !kWhole && p == 0 ? 0.0F : v_scale_[i][h] * inverse;
              p = kIntegers ? fmaf(p, factor, kInteger) : p * factor;
            }
          }
        }
        sum = over_positions(sum, add);
        if (g_ == 0) floats(layout_.sums)[column * kWarps + warp_] = sum;
      }
#pragma unroll
      for (int i = 0; i < kScores; ++i) {
        const int position = score_position(i) + (lane_ & 8);
        const auto pair = [&](int j) {
          const float x = s_[i][n][j], y = s_[i][n][j + 1];
          if constexpr (kIntegers)
            return __byte_perm(__float_as_uint(x), __float_as_uint(y), 0x5410);
          else
            return pack<Config::kOperand>(x, y);
        };
        store_matrices_transposed(
            shared_ + layout_.probabilities + (8 * n + (lane_ & 7)) * Config::kProbabilityRow + position * 2,
            pair(0), pair(2));
      }
    }
    sync();
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int j = 0; j < 2; ++j) rows[n][j].l = over_warps(layout_.sums, 8 * n + 2 * t_ + j, 0, add);
  }

  /// values += 32 positions, of which raw and p hold pairs. The operands are in the order in which bytes of
  /// these come, the same for both. Probabilities behind the last position are 0.
  static __device__ __forceinline__ void weigh_bytes(Sum (&values)[kN][kSums][4], const uint32_t (&raw)[4],
                                                     const uint32_t (&p)[kN][4]) {
    const uint32_t v[4] = {low_bytes(raw[0], raw[1]), high_bytes(raw[0], raw[1]), low_bytes(raw[2], raw[3]),
                           high_bytes(raw[2], raw[3])};
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      mma_bytes<true>(values[n][0], v, high_bytes(p[n][0], p[n][1]), high_bytes(p[n][2], p[n][3]));
      mma_bytes<true>(values[n][1], v, low_bytes(p[n][0], p[n][1]), low_bytes(p[n][2], p[n][3]));
    }
  }

  /// values += the chunk's next `count` tiles, at most two, from tile `first` on; they hold `positions`, and
  /// are taken from the ring. Steps of 16 positions alternate between the sums, or a digit has its own.
  __device__ __forceinline__ void weigh_tiles(Sum (&values)[kN][kSums][4], int first, int count,
                                              int positions) {
    uint32_t tiles[2];
    wait_tiles(tiles, count);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (i >= count) break;
#pragma unroll
      for (int pair = 0; pair < kTile / 32; ++pair) {
        const int begin = i * kTile + pair * 32;
        if (begin >= positions) break;
        uint32_t p[kN][4];
#pragma unroll
        for (int n = 0; n < kN; ++n)
          load_matrices(p[n], shared_ + layout_.probabilities +
                                  (8 * n + (lane_ & 7)) * Config::kProbabilityRow +
                                  (first * kTile + begin + (lane_ >> 3) * 8) * 2);
        uint32_t raw[4];
        if constexpr (kQuantised)
          load_matrices_transposed(raw, Tile::at(tiles[i], lane_, warp_) + pair * 32 * Tile::kBoxRowBytes);
        if constexpr (kIntegers) {
          weigh_bytes(values, raw, p);
        } else {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int left = positions - begin - half * 16;
            if (left <= 0) break;
            uint32_t v[4];
            if constexpr (kQuantised) {
              unpack_fp8_alternate(raw[2 * half], v[0], v[1]);
              unpack_fp8_alternate(raw[2 * half + 1], v[2], v[3]);
            } else {
              load_matrices_transposed(
                  v, Tile::at(tiles[i], pair * 32 + half * 16 + (lane_ & 7) + (lane_ >> 4) * 8,
                              2 * warp_ + ((lane_ >> 3) & 1)));
            }
            if (left < 16) {  // what lies behind the last position may be NaN
              const auto mask = [](int elements) {
                return (elements > 0 ? 0x0000ffffU : 0U) | (elements > 1 ? 0xffff0000U : 0U);
              };
              const uint32_t low = mask(left - 2 * t_), high = mask(left - 2 * t_ - 8);
              v[0] &= low, v[1] &= low;
              v[2] &= high, v[3] &= high;
            }
#pragma unroll
            for (int n = 0; n < kN; ++n)
              mma<Config::kOperand>(values[n][half % kSums], v, p[n][2 * half], p[n][2 * half + 1]);
          }
        }
      }
    }
    release_tiles<2>(count);
  }

  /// With kWhole, all rows see all positions of the chunk: the same arithmetic without the tests.
  template <bool kWhole>
  __device__ __forceinline__ void add_chunk(int length, int chunk) {
    const int count = kWhole ? kChunkPositions : length - chunk * kChunkPositions;
    const int tiles = kWhole ? kTiles : ceil_div(count, kTile);
#pragma unroll
    for (int i = 0; i < kScores; i += kAtOnce) {
      const int left = tiles - i * kScored;
      if (left > 0) score_tiles<kWhole>(i, kWhole ? kAtOnce * kScored : min(left, kAtOnce * kScored));
    }
    ChunkRow rows[kN][2];
    softmax<kWhole>(length, chunk, rows);
    Sum values[kN][kSums][4] = {};
#pragma unroll
    for (int i = 0; i < kTiles; i += 2)
      if (i < tiles)
        weigh_tiles(values, i, kWhole ? 2 : min(tiles - i, 2), kWhole ? 2 * kTile : count - i * kTile);
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float keep, add;
        state_[n][j].merge(rows[n][j].m, rows[n][j].l, keep, add);
#pragma unroll
        for (int e = j; e < 4; e += 2) {
          float part = total(values[n], e);
          if constexpr (kQuantised)
            part = __fmul_rn(part, rows[n][j].v_scale * (kIntegers ? 1 / kCertain : 1.0F));
          o_[n][e] = merge_value(o_[n][e], part, keep, add);
        }
      }
    }
  }

  /// The element of the head that o_[..][2 half] belongs to.
  __device__ int element(int half) const {
    return warp_ * 16 + (kQuantised ? 2 * g_ + half : g_ + 8 * half);
  }

  /// What the thread's registers don't have room for: its row's state and values of the unit's earlier spans,
  /// in shared memory.
  __device__ SoftmaxState& total_state(int n, int j) const {
    return reinterpret_cast<SoftmaxState*>(memory_ +
                                           layout_.total_states)[warp_ * kColumns + 8 * n + 2 * t_ + j];
  }
  __device__ float4& total_values(int n) const {
    return reinterpret_cast<float4*>(memory_ + layout_.total_values)[n * kWarps * 32 + threadIdx.x];
  }

  /// Ends a span, or the chunk that the unit is. A sequence's first unit merges its spans.
  __device__ __forceinline__ void finish_span(const Plan& plan, const Unit& u, int chunk) {
    const int first = uniform(u.first);
    if (first > 0) {
      store_part(plan, u, chunk / plan.part_chunks());
    } else if (chunk >= kChunksPerSpan) {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        const float4 values = total_values(n);
        const float earlier[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          SoftmaxState all = total_state(n, j);
          float keep, add;
          all.merge(state_[n][j].m, state_[n][j].l, keep, add);
          state_[n][j] = all;
#pragma unroll
          for (int e = j; e < 4; e += 2) o_[n][e] = merge_value(earlier[e], o_[n][e], keep, add);
        }
      }
    }
    if (chunk + 1 == uniform(u.end)) return;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      if (first == 0) {
        if (g_ == 0) total_state(n, 0) = state_[n][0], total_state(n, 1) = state_[n][1];
        total_values(n) = make_float4(o_[n][0], o_[n][1], o_[n][2], o_[n][3]);
      }
      state_[n][0] = state_[n][1] = SoftmaxState{};
      o_[n][0] = o_[n][1] = o_[n][2] = o_[n][3] = 0;
    }
    __syncwarp();
  }

  __device__ __forceinline__ void store_result(const Unit& u) const {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int r = 8 * n + 2 * t_ + j;
        if (r >= a_.R()) continue;
        __nv_bfloat16* out = result_row(a_, u.b, u.kv_head, r);
        const float inverse = state_[n][j].inverse_sum();
#pragma unroll
        for (int half = 0; half < 2; ++half)
          out[element(half)] = __float2bfloat16_rn(__fmul_rn(o_[n][j + 2 * half], inverse));
      }
    }
  }

  __device__ __forceinline__ void store_part(const Plan& plan, const Unit& u, int part) const {
    part += plan.first_part(u.b, a_.max_spans);
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int r = 8 * n + 2 * t_ + j;
        if (r >= a_.R()) continue;
        const int64_t row = part_row(a_, part, u.kv_head, r);
        if (warp_ == 0 && g_ == 0)
          reinterpret_cast<float4*>(a_.state)[row] = make_float4(state_[n][j].m, state_[n][j].l, 0, 0);
#pragma unroll
        for (int half = 0; half < 2; ++half)
          a_.partial[row * Config::kDh + element(half)] = o_[n][j + 2 * half];
      }
    }
  }

  /// The unit's parts are stored. The block whose unit is its sequence's and KV head's last one merges them
  /// when it has no more units: in the loop that would take registers from the products. Its pairs of
  /// sequence and KV head are a list that begins at to_merge - 1 and goes on at arrived[pair] - 1. Thread 0
  /// has it.
  __device__ __forceinline__ void count_unit(const Unit& u, MulAttentionSchedule& schedule, int& to_merge) {
    sync();
    if (threadIdx.x > 0) return;
    const int pair = u.b * a_.KV + u.kv_head;
    if (add_in_order(&schedule.arrived[pair], 1) < u.count - 1) return;
    schedule.arrived[pair] = to_merge;
    to_merge = pair + 1;
  }

  __device__ __forceinline__ void merge(const Plan& plan, MulAttentionSchedule& schedule,
                                        int to_merge) const {
    int& shared = *reinterpret_cast<int*>(memory_ + layout_.to_merge);
    for (;;) {
      if (threadIdx.x == 0) shared = to_merge;
      sync();
      const int pair = shared - 1;
      if (pair < 0) return;
      const int b = a_.B == 1 ? 0 : pair / a_.KV;
      if (threadIdx.x == 0) {
        to_merge = schedule.arrived[pair];
        schedule.arrived[pair] = 0;
      }
      combine_parts<Config>(a_, plan, b, pair - b * a_.KV, memory_ + layout_.ring,
                            layout_.stages * Tile::kBytes);
      sync();
    }
  }

  const MulAttentionParams& a_;
  const MulAttentionShared<Config>& layout_;
  uint8_t* memory_;
  uint32_t shared_;
  float scale_;
  int warp_ = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / 32, 0);  // uniform to the compiler, too
  int lane_ = static_cast<int>(threadIdx.x) % 32;
  int g_ = lane_ / 4, t_ = lane_ % 4;
  uint32_t lags_[(2 * kN + 3) / 4] = {};
  RingPosition tile_at_, query_at_;
  uint32_t q_[kHoldQueries ? kK : 1][kN][4];
  float s_[kScores][kN][4];
  float v_scale_[kScores][2];
  SoftmaxState state_[kN][2];  // of the span; at the unit's end, of all that it has merged
  float o_[kN][4];
};

}  // namespace moge::ops::cuda
