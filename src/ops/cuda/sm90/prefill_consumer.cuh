// A warpgroup of the prefill kernel that calculates: 64 query rows. With thread = 32 warp + 4g + t its rows
// are 16 warp + g and 8 more, its columns of a tile 8j + 2t and the next. Scores of the next tile are
// multiplied while the weights of this one and its values are under way.
//
// What bounds it is the number of instructions between two products (docs/kernels/mul_attention.md). So a
// row's weights are 2^(score - offset), where the offset is the largest score of its first tile plus
// kRoom: later tiles look for no maximum, but whether some weight is 2 or more. Only then does the row, for
// itself, take a new offset. And the product with the values counts the weights' sums. A row whose first
// scores all overflow to -inf, beyond 3e38, becomes NaN.
#pragma once
#include "ops/cuda/mma.cuh"
#include "ops/cuda/sm90/attention_wgmma.cuh"
#include "ops/cuda/sm90/prefill.cuh"
#include "ops/cuda/sm90/ring.cuh"
#include "ops/cuda/sm90/tma.cuh"

namespace moge::ops::cuda {

template <int kDh>
class PrefillConsumer {
 public:
  __device__ PrefillConsumer(const PrefillParams& a, const PrefillShared<kDh>& layout, uint8_t* memory)
      : a_(a), layout_(layout), memory_(memory), shared_(shared_address(memory)) {}

  __device__ void run() {
    if (group_ == 1) end_turn();  // the first is warpgroup 0's
    for (;;) {
      barrier_wait(shared_ + layout_.q_full(q_at_.slot), q_at_.round);
      const PrefillItem item = reinterpret_cast<const PrefillItem*>(memory_ + layout_.items)[q_at_.slot];
      if (item.tiles < 0) break;
      attend(item);
    }
    take_turn();
  }

 private:
  using Tile = PrefillTile<kDh>;
  static constexpr int kHalf = PrefillShared<kDh>::kBlock;  // from a tile's first 64 columns to the next
  static constexpr int kSums = kDh / 2;                     // o_[kSums + 2h]: the sum of row h's weights

  __device__ void release(int barrier) {
    if (lane_ == 0) barrier_arrive(shared_ + barrier);
  }

  /// A descriptor's lower half, the same in all lanes: this says so to the compiler.
  static __device__ __forceinline__ uint32_t uniform(uint64_t descriptor) {
    return __shfl_sync(~0U, static_cast<uint32_t>(descriptor), 0);
  }
  /// s_ = q k^T of the tile in the ring's next slot, asynchronously.
  __device__ __forceinline__ void start_scores() {
    barrier_wait(shared_ + layout_.k_full(k_at_.slot), k_at_.round);
    const uint32_t q = uniform(operand_descriptor(shared_ + layout_.q(q_at_.slot) + group_ * 64 * 128));
    const uint32_t k = uniform(operand_descriptor(shared_ + layout_.k(k_at_.slot)));
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kDh / 16; ++i) {
      const int offset = i / 4 * (kHalf >> 4) + i % 4 * 2;
      score_step(s_, q + offset, k + offset, i > 0);
    }
    wgmma_commit();
  }
  /// o_ += p [v 1] of the tile in the ring's next slot, asynchronously.
  __device__ __forceinline__ void start_values() {
    barrier_wait(shared_ + layout_.v_full(v_at_.slot), v_at_.round);
    const uint32_t v =
        uniform(rows_descriptor(shared_ + layout_.v(v_at_.slot), layout_.v_stride(v_at_.slot)));
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kPrefillTile / 16; ++i) value_step(o_, p_ + 4 * i, v + i * (16 * 128 >> 4));
    wgmma_commit();
  }

  /// Scores of positions that a row does not see become -infinity.
  __device__ __forceinline__ void mask(int first_position, int first_column) {
    if (first_column + kPrefillTile - 1 <= first_position) return;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      // The last column that is seen, from the thread's first on. Bit 2j + e: column 8j + e.
      const int seen =
          min(first_position + warp_ * 16 + g_ + 8 * h - first_column - 2 * t_, kPrefillTile - 1);
      const int count = seen < 0 ? 0 : seen / 8 * 2 + 1 + (seen % 8 > 0);
      const auto bits = static_cast<uint32_t>((uint64_t{1} << count) - 1);
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        float& s = s_[i / 2 * 4 + i % 2 + 2 * h];
        s = bits >> i & 1 ? s : -INFINITY;
      }
    }
  }
  /// Two of row h's weights, packed; `all`: the bits of its weights together.
  __device__ __forceinline__ void weigh(int h, int j, uint32_t (&weights)[32], uint32_t& all) const {
    const float x = exp2_approx(__fmaf_rn(s_[4 * j + 2 * h], a_.scale_log2, -offset_[h]));
    const float y = exp2_approx(__fmaf_rn(s_[4 * j + 2 * h + 1], a_.scale_log2, -offset_[h]));
    weights[2 * j + h] = pack<DType::kBF16>(x, y);
    all |= weights[2 * j + h];
  }
  /// The offset under which row h's largest weight of this tile is 2^-kRoom; all lanes that share the row.
  __device__ __forceinline__ float find_offset(int h) const {
    const unsigned quad = 15U << (lane_ & 28);
    float m = -INFINITY;
#pragma unroll
    for (int j = 0; j < 16; ++j) m = fmaxf(m, fmaxf(s_[4 * j + 2 * h], s_[4 * j + 2 * h + 1]));
    m = fmaxf(m, __shfl_xor_sync(quad, m, 1));
    m = fmaxf(m, __shfl_xor_sync(quad, m, 2));
    return __fmaf_rn(m, a_.scale_log2, kRoom);
  }
  /// After the products with p_. Its registers are read until then, which ptxas overlooks when they are only
  /// copied to: it makes both one and then waits for each product (its note C7513).
  __device__ __forceinline__ void keep_weights(const uint32_t (&weights)[32]) {
#pragma unroll
    for (int i = 0; i < 32; ++i) p_[i] = (p_[i] & zero_) | weights[i];
  }

  __device__ __forceinline__ void finish_values() {
    release(layout_.v_empty(v_at_.slot));
    v_at_.next(kPrefillStages);
  }

  // The warpgroups take turns to start products, so that one multiplies while the other is at its softmax.
  __device__ __forceinline__ void begin_turn() const {
    asm volatile("bar.sync %0, 256;" ::"r"(2 + group_) : "memory");
  }
  __device__ __forceinline__ void end_turn() const {
    asm volatile("bar.arrive %0, 256;" ::"r"(3 - group_) : "memory");
  }
  __device__ void finish_scores(bool last) {
    release(layout_.k_empty(k_at_.slot));
    k_at_.next(kPrefillStages);
    if (last) q_at_.next(kPrefillStages);
  }
  /// All lanes arrive: racecheck does not follow one that arrives for its warp.
  __device__ void finish_queries(int slot) const {
    barrier_arrive(shared_ + layout_.q_empty(slot));
  }

  /// Where a warpgroup's results go.
  struct Rows {
    int count;  ///< of its 64; 0: there are none
    int first;  ///< of the batch
    int head;
    int slot;  ///< of its queries, where results are put in order
  };

  /// An item's last values are multiplied in the turn of the next one's first scores.
  __device__ void attend(const PrefillItem& item) {
    const int row = group_ * 64, position = item.position + row;
    const Rows rows{min(item.rows - row, 64), item.first_row + row, item.head, q_at_.slot};
    if (item.tiles == 0) {
      take_turn();
      store(rows, [](float, float, int) { return 0U; });
      return q_at_.next(kPrefillStages);
    }
    const int tiles = rows.count > 0 ? (position + rows.count + kPrefillTile - 1) / kPrefillTile : 0;
    if (tiles > 0) {
      if (rows_.count > 0) {
        first_tile<true>(position, item.tiles == 1);
      } else {
        first_tile<false>(position, item.tiles == 1);
      }
      rows_ = rows;
    }
    for (int tile = 1; tile < tiles; ++tile) next_tile(position, tile * kPrefillTile, tile == item.tiles - 1);
    // Tiles that only the other warpgroup's rows see.
    for (int tile = tiles; tile < item.tiles; ++tile) {
      take_turn();
      barrier_wait(shared_ + layout_.k_full(k_at_.slot), k_at_.round);
      finish_scores(tile == item.tiles - 1);
      barrier_wait(shared_ + layout_.v_full(v_at_.slot), v_at_.round);
      finish_values();
    }
    if (tiles <= 0) finish_queries(rows.slot);
  }

  /// Scores of an item's first tile become weights while the last item's last ones (with kValues) meet their
  /// values.
  template <bool kValues>
  __device__ __forceinline__ void first_tile(int first_position, bool last) {
    begin_turn();
    start_scores();
    if constexpr (kValues) start_values();
    end_turn();
    wgmma_wait<kValues ? 1 : 0>();
    finish_scores(last);
    mask(first_position, 0);
    uint32_t weights[32], all = 0;
    offset_[0] = find_offset(0);
    offset_[1] = find_offset(1);
#pragma unroll
    for (int i = 0; i < 32; ++i) weigh(i % 2, i / 2, weights, all);
    if constexpr (kValues) {
      wgmma_wait<0>();
      finish_values();
      store_result();
    }
#pragma unroll
    for (int i = 0; i < kSums + 4; ++i) o_[i] = 0;
    keep_weights(weights);
  }
  /// The same of a later tile.
  __device__ __forceinline__ void next_tile(int first_position, int first_column, bool last) {
    begin_turn();
    start_scores();
    start_values();
    end_turn();
    wgmma_wait<1>();
    finish_scores(last);
    mask(first_position, first_column);
    uint32_t weights[32], all[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 32; ++i) weigh(i % 2, i / 2, weights, all[i % 2]);
    // The wait is in both branches, or ptxas moves it before the weights, which it should follow.
    if (__any_sync(~0U, (all[0] | all[1]) & kTwo)) {
      wgmma_wait<0>();
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if ((__ballot_sync(~0U, all[h] & kTwo) >> (lane_ & 28) & 15) == 0) continue;
        const float offset = find_offset(h), keep = exp2_approx(offset_[h] - offset);
        offset_[h] = offset;
#pragma unroll
        for (int j = 0; j < 16; ++j) weigh(h, j, weights, all[h]);
#pragma unroll
        for (int i = 0; i < (kSums + 4) / 2; ++i) o_[i / 2 * 4 + i % 2 + 2 * h] *= keep;
      }
    } else {
      wgmma_wait<0>();
    }
    finish_values();
    keep_weights(weights);
  }

  /// A turn without scores: the last values of an item, if they are still to be multiplied.
  __device__ void take_turn() {
    begin_turn();
    if (rows_.count <= 0) return end_turn();
    start_values();
    end_turn();
    wgmma_wait<0>();
    finish_values();
    store_result();
    rows_.count = 0;
  }

  __device__ __forceinline__ void store_result() {
    const float inverse[2] = {__frcp_rn(o_[kSums]), __frcp_rn(o_[kSums + 2])};
    store(rows_, [&](float x, float y, int h) { return pack<DType::kBF16>(x * inverse[h], y * inverse[h]); });
  }
  /// pair(o_[i], o_[i + 1], h): two elements of row h of the thread. Each warp puts its 16 rows in order
  /// where its queries were, so that it writes whole rows.
  template <class Pair>
  __device__ __forceinline__ void store(const Rows& rows, const Pair& pair) const {
    int lane;  // or the compiler keeps all these addresses in registers
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    const uint32_t stage = shared_ + layout_.q(rows.slot) + (group_ * 64 + warp_ * 16) * 128;
    const auto at = [&](int row, int chunk) {
      return stage + chunk / 8 * kHalf + row * 128 + (((chunk ^ row) & 7) << 4);
    };
#pragma unroll
    for (int j = 0; j < kDh / 8; j += 2)
      store_matrices(at(lane % 16, j + lane / 16), pair(o_[4 * j], o_[4 * j + 1], 0),
                     pair(o_[4 * j + 2], o_[4 * j + 3], 1), pair(o_[4 * j + 4], o_[4 * j + 5], 0),
                     pair(o_[4 * j + 6], o_[4 * j + 7], 1));
    __syncwarp();
    constexpr int kChunks = kDh / 8, kStep = 32 / kChunks, kLoads = 16 / kStep;
    const int first = lane / kChunks, chunk = lane % kChunks;
    uint4 x[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(x[i].x), "=r"(x[i].y), "=r"(x[i].z), "=r"(x[i].w)
                   : "r"(at(first + i * kStep, chunk))
                   : "memory");
    // Before the writes, which it would wait for.
    fence_async_proxy();
    finish_queries(rows.slot);
    __nv_bfloat16* out =
        a_.out + (rows.first + warp_ * 16 + first) * a_.out_row + rows.head * a_.out_head + chunk * 8;
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
      if (warp_ * 16 + first + i * kStep < rows.count)
        *reinterpret_cast<uint4*>(out + i * kStep * a_.out_row) = x[i];
  }

  static constexpr float kRoom = 7;
  static constexpr uint32_t kTwo = 0x40004000U;  // the bits that a pair of bf16 has from 2 on, NaN too

  /// 0, of which the compiler does not know.
  static __device__ __forceinline__ uint32_t zero() {
    uint32_t x;
    asm volatile("mov.b32 %0, 0;" : "=r"(x));
    return x;
  }

  const PrefillParams& a_;
  const PrefillShared<kDh>& layout_;
  uint8_t* memory_;
  uint32_t shared_;
  int group_ = static_cast<int>(threadIdx.x) / 128 - 1;  // warpgroup 0 loads
  int warp_ = static_cast<int>(threadIdx.x) % 128 / 32, lane_ = static_cast<int>(threadIdx.x) % 32;
  int g_ = lane_ / 4, t_ = lane_ % 4;
  RingPosition q_at_, k_at_, v_at_;
  Rows rows_{};  // whose values are multiplied up to all but the last tile
  float offset_[2];
  float s_[64], o_[kSums + 4];
  uint32_t p_[32];
  uint32_t zero_ = zero();
};

}  // namespace moge::ops::cuda
