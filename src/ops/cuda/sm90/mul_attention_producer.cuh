// The warp of MulAttention that keeps the copy engine busy: a unit's queries, then for each chunk its tiles
// of keys and of values.
#pragma once
#include "ops/cuda/launch.cuh"
#include "ops/cuda/sm90/bulk_copy.cuh"
#include "ops/cuda/sm90/mul_attention.cuh"
#include "ops/cuda/sm90/tma.cuh"

namespace moge::ops::cuda {

template <class Config>
class MulAttentionProducer {
 public:
  __device__ MulAttentionProducer(const MulAttentionParams& a, const CUtensorMap& k_map,
                                  const CUtensorMap& v_map, const MulAttentionShared<Config>& layout,
                                  uint8_t* memory)
      : a_(a),
        k_map_(k_map),
        v_map_(v_map),
        layout_(layout),
        memory_(memory),
        shared_(shared_address(memory)) {}

  /// Begins with keys that were cached before this step, which need not wait for the kernel before this one.
  /// Units are given out one by one: blocks don't get the same share of the memory's bandwidth.
  __device__ void run(const Plan& plan, MulAttentionSchedule& schedule) {
    const int count = plan.units[a_.B] * a_.KV;
    int id = blockIdx.x;
    Unit u(a_, plan, min(id, count - 1));
    if (id >= count) {
      wait_for_previous();
      return finish(schedule, u);
    }
    int pages = load_pages(u, first_group(u));
    int early = load_early_keys(u, rows_of(u, first_group(u), pages));
    wait_for_previous();
    while (id < count) {
      load_queries(u);
      int rows = rows_of(u, first_group(u), pages);
      for (int c = u.first; c + 1 < u.end; ++c, early = 0) {
        load_chunk(u, c, true, rows, early);
        load_chunk(u, c, false, rows, 0);
        const int box = (c + 1) * boxes_per_chunk_;
        if (box % 32 == 0) rows = rows_of(u, box, load_pages(u, box));
      }
      // The next unit is asked for late, so that none waits behind a long one, and its pages come while this
      // one's last chunk is loaded.
      const Unit now = u;
      if (lane_ == 0) id = static_cast<int>(gridDim.x) + atomicAdd(&schedule.given, 1);
      load_chunk(now, now.end - 1, true, rows, early);
      id = __shfl_sync(~0U, id, 0);
      if (id < count) {
        u = Unit(a_, plan, id);
        pages = load_pages(u, first_group(u));
      }
      load_chunk(now, now.end - 1, false, rows, 0);
      early = 0;
    }
    finish(schedule, u);
  }

 private:
  using Tile = typename Config::Tile;

  /// The group of 32 boxes that the unit begins in.
  __device__ int first_group(const Unit& u) const { return u.first * boxes_per_chunk_ / 32 * 32; }

  /// The pages of boxes [group, group + 32) of a sequence, one a lane.
  __device__ int load_pages(const Unit& u, int group) const {
    const int position = (group + lane_) << log2_box_rows_;
    return position < u.length ? __ldg(a_.block_table + u.b * a_.table_row + position / a_.PS) : 0;
  }
  /// The rows [P KV PS] where these boxes begin.
  __device__ int rows_of(const Unit& u, int group, int pages) const {
    return (pages * a_.KV + u.kv_head) * a_.PS + ((group + lane_) << log2_box_rows_) % a_.PS;
  }

  /// Keys of the first chunk, of the tiles that hold no position of this step. How many positions.
  __device__ int load_early_keys(const Unit& u, int rows) {
    const int begin = u.first * kChunkPositions, end = min(begin + kChunkPositions, u.length - a_.query_rows);
    int p = begin;
    for (; p + Config::kTile <= end; p += Config::kTile) load_tile(true, p, end, rows);
    return p - begin;
  }

  /// Keys or values of a chunk, without the first `early` positions. Lanes hold the rows of its group of
  /// boxes.
  __device__ void load_chunk(const Unit& u, int chunk, bool keys, int rows, int early) {
    const int begin = chunk * kChunkPositions, end = min(begin + kChunkPositions, u.length);
    for (int p = begin + early; p < end; p += Config::kTile) load_tile(keys, p, end, rows);
  }

  /// The tile from `position` on, of which boxes from `end` on are not needed.
  __device__ void load_tile(bool keys, int position, int end, int rows) {
    const int row = __shfl_sync(~0U, rows, (position >> log2_box_rows_) + lane_);
    const int slot = tile_at_.slot;
    const uint32_t full = shared_ + layout_.full(slot);
    const int boxes = (min(end - position, Config::kTile) + (1 << log2_box_rows_) - 1) >> log2_box_rows_;
    const bool scales = Config::kQuantised && keys;  // those of the values, too
    barrier_wait(shared_ + layout_.empty(slot), tile_at_.round ^ 1);
    if (lane_ == 0)
      barrier_arrive_expect(full, (boxes << log2_box_rows_) * (Tile::kRowBytes + (scales ? 8 : 0)));
    __syncwarp();
    if (lane_ < boxes) {
      const int first = lane_ << log2_box_rows_;
      const uint32_t to = shared_ + layout_.ring + slot * Tile::kBytes + first * Tile::kBoxRowBytes;
#pragma unroll
      for (int i = 0; i < Tile::kBoxes; ++i)
        load_box(to + i * Config::kTile * Tile::kBoxRowBytes, keys ? k_map_ : v_map_,
                 i * (Config::kDh / Tile::kBoxes), row, full, policy_);
      if (scales) {
        const uint32_t to_scales = shared_ + layout_.scales + slot * Config::kScaleBytes + first * 4;
        load_bytes(to_scales, a_.k_scales + row, 4 << log2_box_rows_, full);
        load_bytes(to_scales + Config::kTile * 4, a_.v_scales + row, 4 << log2_box_rows_, full);
      }
    }
    tile_at_.next(layout_.stages);
  }

  /// Tells the other warps that there are no more units. The last block leaves the schedule as it was.
  __device__ void finish(MulAttentionSchedule& schedule, Unit last) {
    last.id = -1;
    announce(last);
    if (lane_ == 0) {
      barrier_arrive(shared_ + layout_.query_full(query_at_.slot));
      if (atomicAdd(&schedule.done, 1) == static_cast<int>(gridDim.x) - 1) schedule.given = schedule.done = 0;
    }
  }

  /// Waits for the next place for queries and says whose they are.
  __device__ void announce(const Unit& u) {
    barrier_wait(shared_ + layout_.query_empty(query_at_.slot), query_at_.round ^ 1);
    if (lane_ == 0) reinterpret_cast<Unit*>(memory_ + layout_.unit_slots)[query_at_.slot] = u;
  }

  __device__ void load_queries(const Unit& u) {
    const uint32_t barrier = shared_ + layout_.query_full(query_at_.slot);
    announce(u);
    if (lane_ == 0) barrier_arrive_expect(barrier, a_.R() * Config::kDh * 2);
    __syncwarp();
    const uint32_t to = shared_ + layout_.q + query_at_.slot * Config::kColumns * Config::kQueryRow;
    for (int r = lane_; r < a_.R(); r += 32) {
      const int64_t token = static_cast<int64_t>(u.b) * a_.query_rows + r / a_.G;
      load_bytes(to + r * Config::kQueryRow,
                 a_.q + token * a_.q_row + (u.kv_head * a_.G + r % a_.G) * a_.q_head, Config::kDh * 2,
                 barrier);
    }
    query_at_.next(kQueryStages);
  }

  const MulAttentionParams& a_;
  const CUtensorMap &k_map_, &v_map_;
  const MulAttentionShared<Config>& layout_;
  uint8_t* memory_;
  uint32_t shared_;
  int log2_box_rows_ = a_.log2_box_rows, boxes_per_chunk_ = kChunkPositions >> log2_box_rows_;
  int lane_ = static_cast<int>(threadIdx.x) % 32;
  uint64_t policy_ = evict_first();
  RingPosition tile_at_, query_at_;
};

}  // namespace moge::ops::cuda
