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
    const int* tiles_before = reinterpret_cast<const int*>(memory_ + layout_.tiles);
    PrefillItems items(tiles_before[a_.B] * a_.H);
    if (group_ == 1) end_turn();  // the first is warpgroup 0's
    for (int id = items.next(); id >= 0; id = items.next()) attend(PrefillItem(a_, tiles_before, id));
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
  __device__ void finish_queries() {
    release(layout_.q_empty(q_at_.slot));
    q_at_.next(kPrefillStages);
  }

  __device__ void attend(const PrefillItem& item) {
    if (item.tiles == 0) return store(item, true);
    const int row = group_ * 64;
    const int rows = min(item.rows - row, 64);
    const int tiles = rows > 0 ? (item.position + row + rows + kPrefillTile - 1) / kPrefillTile : 0;
    const int position = item.position + row;
#pragma unroll
    for (int i = 0; i < kDh / 2; ++i) o_[i] = 0;
    m_[0] = m_[1] = -INFINITY;
    l_[0] = l_[1] = 0;
    barrier_wait(shared_ + layout_.q_full(q_at_.slot), q_at_.round);
    begin_turn();
    if (tiles > 0) {
      float keep[2];
      start_scores();
      end_turn();
      wgmma_wait<0>();
      finish_scores(tiles == 1);
      softmax(position, 0, keep);
      pack_weights();
      for (int tile = 1; tile < tiles; ++tile) {
        begin_turn();
        start_scores();
        start_values();
        end_turn();
        wgmma_wait<1>();
        finish_scores(tile == tiles - 1);
        softmax(position, tile * kPrefillTile, keep);
        finish_values();
        // Multiplying by 1 changes no bit: what other rows need does not matter.
        if (__any_sync(~0U, keep[0] != 1 || keep[1] != 1)) {
#pragma unroll
          for (int i = 0; i < kDh / 2; ++i) o_[i] *= keep[i % 4 / 2];
        }
        pack_weights();
      }
      begin_turn();
      start_values();
      end_turn();
      finish_values();
    } else {
      finish_queries();
      end_turn();
    }
    // Tiles that only the other warpgroup's rows see.
    for (int tile = tiles; tile < item.tiles; ++tile) {
      begin_turn();
      end_turn();
      barrier_wait(shared_ + layout_.k_full(k_at_.slot), k_at_.round);
      finish_scores(false);
      barrier_wait(shared_ + layout_.v_full(v_at_.slot), v_at_.round);
      release(layout_.v_empty(v_at_.slot));
      v_at_.next(kPrefillStages);
    }
    store(item, false);
  }

  __device__ __forceinline__ void store(const PrefillItem& item, bool idle) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float l = l_[h];
      l += __shfl_xor_sync(~0U, l, 1);
      l += __shfl_xor_sync(~0U, l, 2);
      const float inverse = __frcp_rn(l);
      const int row = group_ * 64 + warp_ * 16 + g_ + 8 * h;
      if (row >= item.rows) continue;
      __nv_bfloat16* out = a_.out + (item.first_row + row) * a_.out_row + item.head * a_.out_head + 2 * t_;
#pragma unroll
      for (int j = 0; j < kDh / 8; ++j) {
        const float x = o_[4 * j + 2 * h], y = o_[4 * j + 2 * h + 1];
        *reinterpret_cast<uint32_t*>(out + 8 * j) = idle ? 0U : pack<DType::kBF16>(x * inverse, y * inverse);
      }
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
  float m_[2], l_[2];  // l_: of the thread's own columns
  float s_[64], o_[kDh / 2];
  uint32_t p_[32];
};

}  // namespace moge::ops::cuda
