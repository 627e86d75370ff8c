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

  /// The pages of the block's first unit if there is one sequence, by chunks: they are asked for together
  /// with its length.
  static __device__ int guess_pages(const MulAttentionParams& a) {
    if (a.B > 1) return 0;
    const int chunk = static_cast<int>(blockIdx.x) / a.KV;
    const int box =
        chunk * (kChunkPositions >> a.log2_box_rows) / 32 * 32 + static_cast<int>(threadIdx.x) % 32;
    return __ldg(a.block_table + min((box << a.log2_box_rows) / a.PS, a.table_pages - 1));
  }

  /// Makes the barriers, and begins before there is a plan if there is one sequence, of this length, by
  /// chunks. pages: guess_pages().
  __device__ void begin(int length, int pages) {
    if (const int i = lane_; i < layout_.stages + kQueryStages) {
      const bool tile = i < layout_.stages;
      barrier_init(shared_ + (tile ? layout_.full(i) : layout_.query_full(i - layout_.stages)), 1);
      barrier_init(shared_ + (tile ? layout_.empty(i) : layout_.query_empty(i - layout_.stages)),
                   Config::kWarps * 32);
      fence_barrier_init();
    }
    __syncwarp();
    if (lane_ == 0) {
      prefetch_map(k_map_);
      prefetch_map(v_map_);
    }
    const int chunks = ceil_div(length, kChunkPositions), id = blockIdx.x;
    if (a_.B > 1 || id >= chunks * a_.KV || !Plan::by_chunks(a_, Plan::count(chunks, kChunksPerSpan))) return;
    const int chunk = id / a_.KV;
    rows_ = rows_of(id % a_.KV, group_of(chunk), pages);
    load_early(chunk, length);
  }

  /// Begins with what was cached before this step, which need not wait for the kernel before this one. Units
  /// are given out one by one: blocks don't get the same share of the memory's bandwidth.
  __device__ void run(const Plan& plan, MulAttentionSchedule& schedule) {
    const int count = plan.units[a_.B] * a_.KV;
    int id = blockIdx.x;
    Unit u(a_, plan, min(id, count - 1));
    if (id >= count) {
      wait_for_previous();
      return finish(schedule, u);
    }
    if (a_.B > 1 || !plan.by_chunk) {
      rows_ = rows_of(u.kv_head, group_of(u.first), load_pages(u, group_of(u.first)));
      load_early(u.first, u.length);
    }
    announce(u);
    wait_for_previous();
    for (;;) {
      load_queries(u);
      const Unit now = u;
      int pages = 0;
#pragma unroll 1
      for (int c = now.first; c < now.end; ++c) {
        const int end = min(kChunkPositions, now.length - c * kChunkPositions);
        const bool is_last = c + 1 == now.end;
        // The next unit is asked for late, so that none waits behind a long one, and its pages come while
        // this one's last chunk is loaded.
        if (is_last) {
          id = static_cast<int>(gridDim.x);
          if (id < count && lane_ == 0) id += atomicAdd(&schedule.given, 1);
        }
        load_tiles(c, true, early_keys_, end);
        if (is_last) {
          id = __shfl_sync(~0U, id, 0);
          if (id < count) {
            u = Unit(a_, plan, id);
            pages = load_pages(u, group_of(u.first));
          }
        }
        load_tiles(c, false, early_values_, end);
        early_keys_ = early_values_ = 0;
        const int box = (c + 1) * boxes_per_chunk_;
        if (!is_last && box % 32 == 0) rows_ = rows_of(now.kv_head, box, load_pages(now, box));
      }
      if (id >= count) break;
      rows_ = rows_of(u.kv_head, group_of(u.first), pages);
      announce(u);
    }
    finish(schedule, u);
  }

 private:
  using Tile = typename Config::Tile;

  /// The first of the 32 boxes among which a chunk's lie.
  __device__ int group_of(int chunk) const {
    return chunk * boxes_per_chunk_ / 32 * 32;
  }

  /// The pages of boxes [group, group + 32) of a sequence, one a lane.
  __device__ int load_pages(const Unit& u, int group) const {
    const int position = (group + lane_) << log2_box_rows_;
    return position < u.length ? __ldg(a_.block_table + u.b * a_.table_row + position / a_.PS) : 0;
  }
  /// The rows [P KV PS] where these boxes begin.
  __device__ int rows_of(int kv_head, int group, int pages) const {
    return (pages * a_.KV + kv_head) * a_.PS + ((group + lane_) << log2_box_rows_) % a_.PS;
  }

  /// Of the block's first chunk keys in tiles that hold no position of this step, and if those are all,
  /// values: each lane a tile.
  __device__ __forceinline__ void load_early(int chunk, int length) {
    constexpr int kTiles = Config::kTilesPerChunk;
    const int old = min(kChunkPositions, length - a_.query_rows - chunk * kChunkPositions);
    const int tiles = max(old, 0) / Config::kTile;
    const bool values = tiles == kTiles && layout_.stages >= 2 * kTiles;
    early_keys_ = tiles * Config::kTile;
    early_values_ = values ? kChunkPositions : 0;
    const int all = values ? 2 * kTiles : tiles;
    const int boxes = Config::kTile >> log2_box_rows_,
              first = chunk * boxes_per_chunk_ + lane_ % kTiles * boxes;
    const bool keys = lane_ < tiles;
    if (lane_ < all) expect_tile(lane_, keys, Config::kTile);
#pragma unroll 1
    for (int box = 0; box < boxes; ++box) {
      const int row = __shfl_sync(~0U, rows_, first + box);
      if (lane_ < all) load_box_of_tile(lane_, keys, box, row);
    }
    tile_at_ = all < layout_.stages ? RingPosition{all, 0} : RingPosition{0, 1};
  }

  /// Keys or values of a chunk's positions [begin, end).
  __device__ __forceinline__ void load_tiles(int chunk, bool keys, int begin, int end) {
    const int first = chunk * kChunkPositions;
#pragma unroll 1
    for (int p = begin; p < end; p += Config::kTile) load_tile(keys, first + p, first + end);
  }

  /// The tile from `position` on, of which boxes from `end` on are not needed.
  __device__ __forceinline__ void load_tile(bool keys, int position, int end) {
    const int row = __shfl_sync(~0U, rows_, (position >> log2_box_rows_) + lane_);
    const int slot = tile_at_.slot;
    const int boxes = (min(end - position, Config::kTile) + (1 << log2_box_rows_) - 1) >> log2_box_rows_;
    barrier_wait(shared_ + layout_.empty(slot), tile_at_.round ^ 1);
    if (lane_ == 0) expect_tile(slot, keys, boxes << log2_box_rows_);
    __syncwarp();
    if (lane_ < boxes) load_box_of_tile(slot, keys, lane_, row);
    tile_at_.next(layout_.stages);
  }

  /// With keys come K's and V's scales.
  static __device__ __forceinline__ bool has_scales(bool keys) {
    return Config::kQuantised && keys;
  }
  __device__ __forceinline__ void expect_tile(int slot, bool keys, int positions) const {
    barrier_arrive_expect(shared_ + layout_.full(slot),
                          positions * (Tile::kRowBytes + (has_scales(keys) ? 8 : 0)));
  }
  __device__ __forceinline__ void load_box_of_tile(int slot, bool keys, int box, int row) const {
    const uint32_t full = shared_ + layout_.full(slot);
    const int first = box << log2_box_rows_;
    const uint32_t to = shared_ + layout_.ring + slot * Tile::kBytes + first * Tile::kBoxRowBytes;
#pragma unroll
    for (int i = 0; i < Tile::kBoxes; ++i)
      load_box(to + i * Config::kTile * Tile::kBoxRowBytes, keys ? k_map_ : v_map_,
               i * (Config::kDh / Tile::kBoxes), row, full, policy_);
    if (has_scales(keys)) {
      const uint32_t to_scales = shared_ + layout_.scales + slot * Config::kScaleBytes + first * 4;
      load_bytes(to_scales, a_.k_scales + row, 4 << log2_box_rows_, full);
      load_bytes(to_scales + Config::kTile * 4, a_.v_scales + row, 4 << log2_box_rows_, full);
    }
  }

  /// Tells the other warps that there are no more units. The last block leaves the schedule as it was.
  __device__ void finish(MulAttentionSchedule& schedule, Unit last) {
    last.id = -1;
    place(last);
    if (lane_ == 0) {
      barrier_arrive(shared_ + layout_.query_full(query_at_.slot));
      if (atomicAdd(&schedule.done, 1) == static_cast<int>(gridDim.x) - 1) schedule.given = schedule.done = 0;
    }
  }

  /// Waits for the next place for queries and says whose they are.
  __device__ void place(const Unit& u) {
    barrier_wait(shared_ + layout_.query_empty(query_at_.slot), query_at_.round ^ 1);
    if (lane_ == 0) reinterpret_cast<Unit*>(memory_ + layout_.unit_slots)[query_at_.slot] = u;
  }
  /// The same, before load_queries().
  __device__ void announce(const Unit& u) {
    place(u);
    if (lane_ == 0)
      barrier_arrive_expect(shared_ + layout_.query_full(query_at_.slot), a_.R() * Config::kDh * 2);
    __syncwarp();
  }
  __device__ void load_queries(const Unit& u) {
    const uint32_t barrier = shared_ + layout_.query_full(query_at_.slot);
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
  int rows_ = 0;                           // where the boxes of a group begin, one a lane
  int early_keys_ = 0, early_values_ = 0;  // positions of the first chunk that load_early() asked for
};

}  // namespace moge::ops::cuda
