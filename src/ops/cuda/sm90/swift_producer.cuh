// SwiftGMM's producers: what fetches weights, rows and factors into shared memory, ahead of the consumers.
#pragma once
#include "ops/cuda/sm90/cluster.cuh"
#include "ops/cuda/sm90/swift_plan.cuh"

namespace moge::ops::cuda::swift {

inline constexpr int kGatherWarps = 3;  ///< of the producers' warpgroup; the fourth warp fetches factors

/// A thread of the warps that fill the ring. Weights and contiguous rows come by the copy engine, from the
/// first warp; rows that row_ids gathers by 16 bytes a thread, because the engine needs some 55 cycles a row.
template <class P, int kElementBytes>
class Producer {
 public:
  /// rank: of the block in its cluster.
  __device__ Producer(const SwiftGmmParams& p, const SwiftMaps& maps, uint32_t shared, int rank)
      : p_(p), maps_(maps), shared_(shared), rank_(rank), thread_(static_cast<int>(threadIdx.x) % 128) {}

  __device__ void begin(const Tile& t) {
    tile_ = t;
    policy_ = weight_policy();
    blocks_ = t.rows == 0 ? 0 : min(P::kWarpgroups, (p_.n - t.feature + kBlockFeatures - 1) / kBlockFeatures);
  }
  /// When row_ids may be read.
  __device__ void begin_rows() {
    if (!gathers()) return;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      const int r = i * kRowsAtOnce + thread_ / 8;
      row_units_[i] =
          r < tile_.rows ? static_cast<uint32_t>(p_.row_ids[tile_.row + r]) * p_.a_stride_units : 0;
    }
  }

  __device__ void weights(int stage, int block) const {
    if (thread_ >= 32) return;
    const uint32_t barrier = full(stage);
    const int row_bytes = gathers() ? 0 : eights() * 8 * kSwizzleBytes;
    if (thread_ == 0)
      barrier_arrive_expect(barrier, static_cast<uint32_t>(blocks_ * kBlockBytes + row_bytes));
    __syncwarp();
    if (thread_ < blocks_)
      load_box(shared_ + stage * P::kStageBytes + thread_ * kBlockBytes, maps_.w,
               block * kSwizzleBytes / kElementBytes,
               tile_.group * p_.n + tile_.feature + thread_ * kBlockFeatures, barrier, policy_);
  }
  __device__ void rows(int stage, int block) const {
    const uint32_t to = shared_ + stage * P::kStageBytes + P::kFeatures * kSwizzleBytes;
    if (gathers())
      gather(to, block, full(stage));
    else
      copy_rows(to, block, full(stage));
  }

 private:
  __device__ bool gathers() const {
    return P::kGathers && p_.gather;
  }
  /// Weights that several tiles want must outlast the first of them. Others leave first, which makes few rows
  /// faster; but many results then fill the L2, and writing them takes long.
  __device__ uint64_t weight_policy() const {
    if (!tile_.alone) return evict_normal();
    return p_.many_results ? evict_unchanged() : evict_first();
  }
  static constexpr int kRowsAtOnce = kGatherWarps * 4;  // eight threads each
  static constexpr int kThreadRows = (P::kRows + kRowsAtOnce - 1) / kRowsAtOnce;

  __device__ uint32_t full(int stage) const {
    return shared_ + P::kFullAt + stage * 8;
  }
  /// Of rows; the last ones may be another tile's.
  __device__ int eights() const {
    return (tile_.rows + 7) / 8;
  }

  /// All rows, or a half of those that the cluster shares.
  __device__ void copy_rows(uint32_t to, int block, uint32_t barrier) const {
    const int lower_half = (eights() + 1) / 2;
    const int begin = tile_.shares_rows ? rank_ * lower_half : 0;
    const int count = !tile_.shares_rows ? eights() : rank_ == 0 ? lower_half : eights() - lower_half;
    if (thread_ >= 6 || (count & 1 << thread_) == 0) return;
    const int r = (begin + (count >> (thread_ + 1) << (thread_ + 1))) * 8;  // after the larger boxes
    const CUtensorMap& map = maps_.a[thread_];
    const int x = block * kSwizzleBytes / kElementBytes;
    const int y = tile_.row + r;
    if (P::kBlocks > 1 && tile_.shares_rows)
      load_box_to_blocks(to + r * kSwizzleBytes, map, x, y, barrier, (1 << P::kBlocks) - 1, evict_last());
    else
      load_box(to + r * kSwizzleBytes, map, x, y, barrier, evict_last());
  }
  __device__ void gather(uint32_t to, int block, uint32_t barrier) const {
    static_assert(kRowsAtOnce % 8 == 4);  // so that a thread's rows are swizzled in two ways
    const int chunk = thread_ % 8, first = thread_ / 8;
    const int k = block * kSwizzleBytes + chunk * 16;
    const char* from = static_cast<const char*>(p_.a) + k;
    asm volatile("" : "+l"(from));  // in registers, not added anew for every row
    const bool zeros = k >= p_.k_bytes;
    to += static_cast<uint32_t>(first * kSwizzleBytes);
    const uint32_t to_even = to + static_cast<uint32_t>((chunk ^ first % 8) * 16);
    const uint32_t to_odd = to + static_cast<uint32_t>((chunk ^ first % 8 ^ 4) * 16);
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i)
      if (i * kRowsAtOnce < tile_.rows - first)
        load_16((i % 2 == 0 ? to_even : to_odd) + i * kRowsAtOnce * kSwizzleBytes,
                from + uint64_t{row_units_[i]} * 16, zeros);
    barrier_arrive_after_loads(barrier);
  }

  const SwiftGmmParams& p_;
  const SwiftMaps& maps_;
  uint32_t shared_;
  int rank_;
  int thread_;
  Tile tile_{};
  int blocks_ = 0;                        // of 64 features
  uint64_t policy_ = 0;                   // of weights in the L2
  uint32_t row_units_[kThreadRows] = {};  // where rows of a begin, in units of 16 bytes
};

/// Steps that clusters have taken, beside each one's first; 0 between launches, which follow each other in
/// the backend's one stream.
static __device__ int steps_taken;

/// The steps of a cluster, asked for by one warp of each of its blocks.
template <class P>
class Steps {
 public:
  /// rank: of the block in its cluster.
  __device__ Steps(const SwiftGmmParams& p, uint32_t shared, int rank, int num_steps)
      : takes_(p.takes_steps && P::kBlocks > 1),
        shared_(shared),
        rank_(rank),
        clusters_(static_cast<int>(gridDim.x) / P::kBlocks),
        num_steps_(num_steps) {}

  /// Behind `step`: at least num_steps when there are no more.
  __device__ int after(int step) {
    if (!takes_) return step + clusters_;
    const bool one = threadIdx.x % 32 == 0;
    const uint32_t given = shared_ + P::kStepGivenAt, wanted = shared_ + P::kStepWantedAt;
    if (rank_ == 0) {
      if (one) step = take();
      barrier_wait(wanted, parity_);
      if (one)
        send(cluster_address(shared_ + P::kGivenStepAt, 1), __int_as_float(step), cluster_address(given, 1));
      step = __shfl_sync(~0U, step, 0);
    } else {
      if (one) {
        barrier_arrive_expect(given, sizeof(int));
        barrier_arrive_in_cluster(cluster_address(wanted, 0));
      }
      barrier_wait(given, parity_);
      asm volatile("ld.shared.u32 %0, [%1];" : "=r"(step) : "r"(shared_ + P::kGivenStepAt) : "memory");
      __syncwarp();
    }
    parity_ ^= 1;
    return step;
  }

 private:
  /// Each cluster that had a first step asks until there are no more, so in all they ask num_steps times.
  __device__ int take() const {
    const int taken = atomicAdd(&steps_taken, 1);
    if (taken == num_steps_ - 1) steps_taken = 0;
    return clusters_ + taken;
  }
  static_assert(P::kBlocks <= 2);

  bool takes_;
  uint32_t shared_;
  int rank_, clusters_, num_steps_;
  uint32_t parity_ = 0;
};

/// The warp that fetches the factors of a tile.
template <class P>
__device__ void load_factors(const SwiftGmmParams& p, const Tile& tile, typename P::Factors& to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < (P::kRows + 31) / 32; ++i) {
    const int r = i * 32 + lane;
    if (r >= tile.rows) continue;
    const int row = tile.row + r;
    const float scale = p.a_scale ? p.a_scale[p.row_ids ? p.row_ids[row] : row] : 1.0F;
    to.rows[r] = {scale, p.row_weight ? scale * p.row_weight[row] : scale};
  }
#pragma unroll
  for (int i = 0; i < P::kFeatures / 32; ++i) {
    const int f = i * 32 + lane, feature = tile.feature + f;
    if (feature >= p.n) continue;
    to.w_scale[f] = p.w_scale ? p.w_scale[static_cast<int64_t>(tile.group) * p.n + feature] : 1.0F;
    to.bias[f] = p.bias ? p.bias[feature] : 0.0F;
  }
}

}  // namespace moge::ops::cuda::swift
