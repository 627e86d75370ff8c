// A warpgroup of the prefill kernel that calculates: 64 query rows. With thread = 32 warp + 4g + t its rows
// are 16 warp + g and 8 more, its columns of a tile 8j + 2t and the next. Scores of the next tile are
// multiplied while the softmax of this one and its values are under way.
#pragma once
#include "ops/cuda/mma.cuh"
#include "ops/cuda/sm90/attention_wgmma.cuh"
#include "ops/cuda/sm90/prefill.cuh"
#include "ops/cuda/sm90/ring.cuh"

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
  static constexpr int kHalf = kPrefillTile * 128;  // bytes from a tile's first 64 columns to the next

  __device__ void release(int barrier) {
    if (lane_ == 0) barrier_arrive(shared_ + barrier);
  }

  /// s_ = q k^T of the tile in the ring's next slot, asynchronously.
  __device__ __forceinline__ void start_scores() {
    barrier_wait(shared_ + layout_.k_full(k_at_.slot), k_at_.round);
    const uint64_t q =
        operand_descriptor(shared_ + layout_.q + q_at_.slot * Tile::kBytes + group_ * 64 * 128);
    const uint64_t k = operand_descriptor(shared_ + layout_.k + k_at_.slot * Tile::kBytes);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kDh / 16; ++i) {
      const int offset = i / 4 * (kHalf >> 4) + i % 4 * 2;
      score_step(s_, q + offset, k + offset, i > 0);
    }
    wgmma_commit();
  }
  /// o_ += p v of the tile in the ring's next slot, asynchronously.
  __device__ __forceinline__ void start_values() {
    barrier_wait(shared_ + layout_.v_full(v_at_.slot), v_at_.round);
    const uint64_t v = rows_descriptor(shared_ + layout_.v + v_at_.slot * Tile::kBytes, kHalf);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kPrefillTile / 16; ++i) value_step(o_, p_ + 4 * i, v + i * (16 * 128 >> 4));
    wgmma_commit();
  }

  /// s_ becomes weights; what o_ counts from now on in keep.
  __device__ __forceinline__ void softmax(int first_position, int first_column, float (&keep)[2]) {
    const float scale = a_.scale_log2;
    if (first_column + kPrefillTile - 1 > first_position) {
#pragma unroll
      for (int i = 0; i < 64; ++i) {
        const int column = first_column + i / 4 * 8 + 2 * t_ + i % 2;
        const int position = first_position + warp_ * 16 + g_ + i % 4 / 2 * 8;
        if (column > position) s_[i] = -INFINITY;
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float m = m_[h];
#pragma unroll
      for (int j = 0; j < 16; ++j) m = fmaxf(m, fmaxf(s_[4 * j + 2 * h], s_[4 * j + 2 * h + 1]));
      m = fmaxf(m, __shfl_xor_sync(~0U, m, 1));
      m = fmaxf(m, __shfl_xor_sync(~0U, m, 2));
      keep[h] = exp2_approx((m_[h] - m) * scale);
      m_[h] = m;
      const float offset = m * scale;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s_[4 * j + 2 * h + e];
          x = exp2_approx(__fmaf_rn(x, scale, -offset));
          sum += x;
        }
      }
      l_[h] = __fmaf_rn(l_[h], keep[h], sum);
    }
  }
  __device__ __forceinline__ void pack_weights() {
#pragma unroll
    for (int i = 0; i < 32; ++i) p_[i] = pack<DType::kBF16>(s_[2 * i], s_[2 * i + 1]);
  }
  __device__ __forceinline__ void finish_values() {
    wgmma_wait<0>();
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
    if (last) finish_queries();
  }
  /// All lanes arrive: racecheck does not follow one that arrives for its warp.
  __device__ void finish_queries() {
    barrier_arrive(shared_ + layout_.q_empty(q_at_.slot));
    q_at_.next(kPrefillStages);
  }

  /// Where a warpgroup's results go.
  struct Rows {
    int count;  ///< of its 64; 0: there are none
    int first;  ///< of the batch
    int head;
  };

  /// An item's last values are multiplied in the turn of the next one's first scores.
  __device__ void attend(const PrefillItem& item) {
    const int row = group_ * 64, position = item.position + row;
    const Rows rows{min(item.rows - row, 64), item.first_row + row, item.head};
    if (item.tiles == 0) {
      store(rows, [](float, float, int) { return 0U; });
      return finish_queries();
    }
    const int tiles = rows.count > 0 ? (position + rows.count + kPrefillTile - 1) / kPrefillTile : 0;
    if (tiles > 0) {
      const float l[2] = {l_[0], l_[1]};
      m_[0] = m_[1] = -INFINITY;
      l_[0] = l_[1] = 0;
      float keep[2];
      if (rows_.count > 0) {
        add_tile<true>(position, 0, item.tiles == 1, keep);
        store_result(l);
      } else {
        add_tile<false>(position, 0, item.tiles == 1, keep);
      }
      rows_ = rows;
#pragma unroll
      for (int i = 0; i < kDh / 2; ++i) o_[i] = 0;
      pack_weights();
    }
    for (int tile = 1; tile < tiles; ++tile) {
      float keep[2];
      add_tile<true>(position, tile * kPrefillTile, tile == item.tiles - 1, keep);
      // Multiplying by 1 changes no bit: what other rows need does not matter.
      if (__any_sync(~0U, keep[0] != 1 || keep[1] != 1)) {
#pragma unroll
        for (int i = 0; i < kDh / 2; ++i) o_[i] *= keep[i % 4 / 2];
      }
      pack_weights();
    }
    // Tiles that only the other warpgroup's rows see.
    for (int tile = tiles; tile < item.tiles; ++tile) {
      take_turn();
      barrier_wait(shared_ + layout_.k_full(k_at_.slot), k_at_.round);
      finish_scores(tile == item.tiles - 1);
      barrier_wait(shared_ + layout_.v_full(v_at_.slot), v_at_.round);
      release(layout_.v_empty(v_at_.slot));
      v_at_.next(kPrefillStages);
    }
  }

  /// Scores of the next tile become weights, in s_, while those of the tile before it (with kValues) meet
  /// their values.
  template <bool kValues>
  __device__ __forceinline__ void add_tile(int first_position, int first_column, bool last,
                                           float (&keep)[2]) {
    begin_turn();
    start_scores();
    if constexpr (kValues) start_values();
    end_turn();
    wgmma_wait<kValues ? 1 : 0>();
    finish_scores(last);
    softmax(first_position, first_column, keep);
    if constexpr (kValues) finish_values();
  }

  /// A turn without scores: the last values of an item, if they are still to be multiplied.
  __device__ void take_turn() {
    begin_turn();
    if (rows_.count <= 0) return end_turn();
    start_values();
    end_turn();
    finish_values();
    store_result(l_);
    rows_.count = 0;
  }

  /// `l`: the sums of the thread's own columns.
  __device__ __forceinline__ void store_result(const float (&l)[2]) {
    float inverse[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = l[h];
      sum += __shfl_xor_sync(~0U, sum, 1);
      sum += __shfl_xor_sync(~0U, sum, 2);
      inverse[h] = __frcp_rn(sum);
    }
    store(rows_, [&](float x, float y, int h) { return pack<DType::kBF16>(x * inverse[h], y * inverse[h]); });
  }
  /// pair(o_[i], o_[i + 1], h): two elements of row h of the thread.
  template <class Pair>
  __device__ __forceinline__ void store(const Rows& rows, const Pair& pair) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = warp_ * 16 + g_ + 8 * h;
      if (row >= rows.count) continue;
      __nv_bfloat16* out = a_.out + (rows.first + row) * a_.out_row + rows.head * a_.out_head + 2 * t_;
#pragma unroll
      for (int j = 0; j < kDh / 8; ++j)
        *reinterpret_cast<uint32_t*>(out + 8 * j) = pair(o_[4 * j + 2 * h], o_[4 * j + 2 * h + 1], h);
    }
  }

  const PrefillParams& a_;
  const PrefillShared<kDh>& layout_;
  uint8_t* memory_;
  uint32_t shared_;
  int group_ = static_cast<int>(threadIdx.x) / 128 - 1;  // warpgroup 0 loads
  int warp_ = static_cast<int>(threadIdx.x) % 128 / 32, lane_ = static_cast<int>(threadIdx.x) % 32;
  int g_ = lane_ / 4, t_ = lane_ % 4;
  RingPosition q_at_, k_at_, v_at_;
  Rows rows_{0, 0, 0};  // whose values are multiplied up to all but the last tile; l_ is complete
  float m_[2], l_[2];   // l_: of the thread's own columns
  float s_[64], o_[kDh / 2];
  uint32_t p_[32];
};

}  // namespace moge::ops::cuda
