// The warp of the prefill kernel that loads: queries, keys and values in the order in which they are needed.
#pragma once
#include "ops/cuda/sm90/bulk_copy.cuh"
#include "ops/cuda/sm90/prefill.cuh"
#include "ops/cuda/sm90/ring.cuh"
#include "ops/cuda/sm90/tma.cuh"

namespace moge::ops::cuda {

template <int kDh>
class PrefillProducer {
 public:
  __device__ PrefillProducer(const PrefillParams& a, const CUtensorMap& q_map, const CUtensorMap& k_map,
                             const CUtensorMap& v_map, const PrefillShared<kDh>& layout, uint8_t* memory)
      : a_(a),
        q_map_(q_map),
        k_map_(k_map),
        v_map_(v_map),
        layout_(layout),
        memory_(memory),
        shared_(shared_address(memory)),
        tiles_before_(reinterpret_cast<const int*>(memory + layout.tiles)) {}

  /// One warp. Products of keys run ahead of those of values, across items: K0 K1 V0 K2 V1 ... Kn Vn-1, then
  /// the next item's K0 Vn K1 V0 .... Items are given out one by one, so that blocks end together; the next
  /// one is asked for late.
  __device__ void run(PrefillSchedule& schedule) {
    const int count = tiles_before_[a_.B] * a_.H;
    Place values{.tile = -1};  // the last keys loaded, whose values are still to be loaded
    const auto load_last_values = [&] {
      if (values.tile >= 0) load_values(values);
      values.tile = -1;
    };
    for (int id = blockIdx.x; id < count;) {
      const PrefillItem item(a_, tiles_before_, id);
      load_queries(item);
      for (int tile = 0; tile < item.tiles; ++tile) {
        const Place keys{item.b, item.kv_head, item.length, tile};
        load_keys(keys);
        if (tile == item.tiles - 1) id = ask(schedule);
        load_last_values();
        values = keys;
      }
      if (item.tiles == 0) {
        load_last_values();
        id = ask(schedule);
      }
      id = __shfl_sync(~0U, id, 0);
    }
    load_last_values();
    finish(schedule);
  }

 private:
  using Tile = PrefillTile<kDh>;
  /// A tile of keys or values.
  struct Place {
    int b, kv_head, length, tile;
  };

  /// Lane 0: the next item.
  __device__ int ask(PrefillSchedule& schedule) const {
    return lane_ == 0 ? static_cast<int>(gridDim.x) + atomicAdd(&schedule.given, 1) : 0;
  }

  /// Waits for the next place for queries and says whose they are.
  __device__ void announce(const PrefillItem& item) {
    barrier_wait(shared_ + layout_.q_empty(q_at_.slot), q_at_.round ^ 1);
    if (lane_ == 0) reinterpret_cast<PrefillItem*>(memory_ + layout_.items)[q_at_.slot] = item;
  }

  __device__ void load_queries(const PrefillItem& item) {
    announce(item);
    if (lane_ == 0) {
      const int slot = q_at_.slot;
      const uint32_t full = shared_ + layout_.q_full(slot);
      barrier_arrive_expect(full, item.tiles > 0 ? Tile::kBytes : 0);
      for (int i = 0; i < Tile::kBoxes && item.tiles > 0; ++i)
        load_box_3d(shared_ + layout_.q(slot) + i * kPrefillRows * 128, q_map_, i * 64, item.head,
                    item.first_row, full);
    }
    q_at_.next(kPrefillStages);
  }

  /// Tells the other warps that there are no more items. The last block leaves the schedule as it was.
  __device__ void finish(PrefillSchedule& schedule) {
    PrefillItem none(a_, tiles_before_, 0);
    none.tiles = -1;
    announce(none);
    if (lane_ == 0) {
      barrier_arrive(shared_ + layout_.q_full(q_at_.slot));
      if (atomicAdd(&schedule.done, 1) == static_cast<int>(gridDim.x) - 1) schedule.given = schedule.done = 0;
    }
  }

  __device__ void load_keys(const Place& of) {
    const int slot = k_at_.slot;
    barrier_wait(shared_ + layout_.k_empty(slot), k_at_.round ^ 1);
    load_tile(of, k_map_, shared_ + layout_.k(slot), kPrefillTile * 128, shared_ + layout_.k_full(slot));
    k_at_.next(kPrefillStages);
  }

  __device__ void load_values(const Place& of) {
    const int slot = v_at_.slot;
    const uint32_t to = shared_ + layout_.v(slot), full = shared_ + layout_.v_full(slot);
    const int stride = layout_.v_stride(slot);
    barrier_wait(shared_ + layout_.v_empty(slot), v_at_.round ^ 1);
    v_at_.next(kPrefillStages);
    const int count = of.length - of.tile * kPrefillTile;
    if (count >= kPrefillTile) return load_tile(of, v_map_, to, stride, full);
    // What lies behind the last position may be NaN, and weights of 0 don't help against that.
    load_tile(of, v_map_, to, stride, shared_ + layout_.tail());
    barrier_wait(shared_ + layout_.tail(), tail_round_);
    tail_round_ ^= 1;
    constexpr int kChunks = Tile::kRowBytes / 16;
    for (int i = count * kChunks + lane_; i < kPrefillTile * kChunks; i += 32)
      asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(Tile::at(
                       to + i % kChunks / 8 * (stride - kPrefillTile * 128), i / kChunks, i % kChunks)),
                   "r"(0)
                   : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncwarp();
    if (lane_ == 0) barrier_arrive(full);
  }

  /// The boxes of a tile that hold positions of the sequence, completing on `barrier`, which is told their
  /// bytes; blocks of 64 columns `stride` bytes apart.
  __device__ void load_tile(const Place& of, const CUtensorMap& map, uint32_t to, int stride,
                            uint32_t barrier) {
    const int count = min(of.length - of.tile * kPrefillTile, kPrefillTile);
    const int boxes = (count + a_.box_rows - 1) / a_.box_rows;
    if (lane_ == 0) barrier_arrive_expect(barrier, boxes * a_.box_rows * Tile::kRowBytes);
    __syncwarp();
    if (lane_ < boxes) {
      const int first = lane_ * a_.box_rows, position = of.tile * kPrefillTile + first;
      const int index = position / a_.PS;
      const int page =
          a_.block_table ? __ldg(a_.block_table + of.b * a_.table_row + index) : of.b * a_.MP + index;
      const int row = (page * a_.KV + of.kv_head) * a_.PS + position % a_.PS;
      for (int i = 0; i < Tile::kBoxes; ++i)
        load_box(to + i * stride + first * 128, map, i * 64, row, barrier, policy_);
    }
  }

  const PrefillParams& a_;
  const CUtensorMap &q_map_, &k_map_, &v_map_;
  const PrefillShared<kDh>& layout_;
  uint8_t* memory_;
  uint32_t shared_;
  const int* tiles_before_;
  int lane_ = static_cast<int>(threadIdx.x) % 32;
  uint64_t policy_ = evict_last();
  RingPosition q_at_, k_at_, v_at_;
  uint32_t tail_round_ = 0;
};

}  // namespace moge::ops::cuda
