// The kernel. Weights are the tensor core's 64-row operand and tokens its n-sized one, so that few tokens
// waste nothing and every element of c is one chain of the same products in the same order whatever the tile
// is.
//
// One thread block per multiprocessor works through tiles of (features x rows) of c. One warpgroup
// (swift_producer.cuh) feeds a ring of stages, each a 128-byte slice of K of the tile's weights and tokens;
// it runs ahead across tiles, so that memory stays busy while the other warpgroups, 64 features each, finish
// theirs (swift_epilogue.cuh).
//
// The largest tile is a cluster's of two blocks: each has half of its features, and fetches half of its rows
// for both. A stage is refilled when the warpgroups of both have used it. Tall tiles of groups differ by
// half, so pairs take them from a counter, in order; each block's warp that fetches factors announces the
// tile.
#pragma once
#include <bit>
#include <type_traits>
#include <utility>

#include "ops/cuda/at_once.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/sm90/swift_epilogue.cuh"
#include "ops/cuda/sm90/swift_producer.cuh"
#include "ops/cuda/sm90/wgmma.cuh"

namespace moge::ops::cuda::swift {

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
  bool gathered;   ///< rows did not come by the copy engine
  uint32_t empty;  ///< barriers of a block of the cluster, one for each of a warp's first lanes
  RingPosition<P::kStages> ring;
  bool keeps_stage;  ///< a tile's last, from which its results leave
  int kept = -1;

  /// The stage's part that only this warpgroup reads.
  __device__ uint32_t weights_of(int stage) const {
    return shared + stage * P::kStageBytes + warpgroup * kBlockBytes;
  }
  /// d += the first kCount products of the ring's next stage with kColumns rows of tokens.
  template <int kCount, int kColumns, int kRegisters>
  __device__ __forceinline__ void multiply(uint32_t (&d)[kRegisters]) {
    const uint32_t stage = shared + ring.stage * P::kStageBytes;
    const uint64_t w = operand_descriptor(weights_of(ring.stage));
    const uint64_t a = operand_descriptor(stage + P::kFeatures * kSwizzleBytes);
    barrier_wait(shared + P::kFullAt + ring.stage * 8, ring.parity);
    if (P::kGathers && gathered) fence_async_proxy();
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kCount; ++step) wgmma<kType, kColumns>(d, w + 2 * step, a + 2 * step);
    wgmma_commit();
  }
  /// Rows come to all blocks of the cluster at once, so all must know.
  __device__ __forceinline__ void release(int stage) const {
    if (threadIdx.x % 32 >= P::kBlocks) return;
    if constexpr (P::kBlocks > 1)
      barrier_arrive_in_cluster(empty + stage * 8);
    else
      barrier_arrive(empty + stage * 8);
  }

  /// For a warpgroup whose features do not exist.
  __device__ __forceinline__ void skip(int blocks) {
    for (int block = 0; block < blocks; ++block) {
      barrier_wait(shared + P::kFullAt + ring.stage * 8, ring.parity);
      release(ring.stage);
      ring.advance();
    }
  }

  /// d += the sum over K of the warpgroup's 64 features x kColumns rows. The products stay in flight while
  /// the next stage is awaited.
  template <int kColumns, int kRegisters>
  __device__ __forceinline__ void accumulate(uint32_t (&d)[kRegisters], int full_blocks, bool half_block) {
    int previous = -1;
    for (int block = 0; block < full_blocks; ++block) {
      multiply<kSteps, kColumns>(d);
      if (block == 0) release_kept();
      wgmma_wait<1>();
      if (previous >= 0) release(previous);
      previous = ring.stage;
      ring.advance();
    }
    wgmma_wait<0>();
    if (half_block) {
      if (previous >= 0) release(previous);
      multiply<kSteps / 2, kColumns>(d);
      release_kept();
      wgmma_wait<0>();
      previous = ring.stage;
      ring.advance();
    }
    if (keeps_stage)
      kept = previous;
    else
      release(previous);
  }
  /// When the results of the tile before have left it.
  __device__ __forceinline__ void release_kept() {
    if (kept < 0) return;
    if (threadIdx.x % 128 < 32) wait_for_reads_of_stores<0>();
    __syncwarp();
    release(kept);
    kept = -1;
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
  int* const start = reinterpret_cast<int*>(memory + P::kStartAt);
  int* const row_start = reinterpret_cast<int*>(memory + P::kRowStartAt);
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;

  const auto wait = [&] {
    if (!p.beside_previous) wait_for_previous();
  };
  if (threadIdx.x >= 32 && threadIdx.x < 32 + std::bit_width(unsigned{P::kRows / 8}))
    prefetch_map(maps.a[threadIdx.x - 32]);
  if (threadIdx.x == 0) {
    prefetch_map(maps.w);
    for (int stage = 0; stage < P::kStages; ++stage) {
      barrier_init(shared + P::kFullAt + stage * 8, P::kGathers && p.gather ? 1 + kGatherWarps * 32 : 1);
      barrier_init(shared + P::kEmptyAt + stage * 8, P::kWarpgroups * 4 * P::kBlocks);
    }
    for (int set = 0; set < P::kFactorSets; ++set) {
      barrier_init(shared + P::kTileFullAt + set * 8, 1);
      barrier_init(shared + P::kFactorsFullAt + set * 8, 32);
      barrier_init(shared + P::kFactorsEmptyAt + set * 8,
                   P::kWarpgroups * 128 + (P::kGathers && p.gather ? kGatherWarps * 32 : 32));
    }
    barrier_init(shared + P::kStepGivenAt, 1);
    barrier_init(shared + P::kStepWantedAt, 1);
    fence_barrier_init();
  }
  if constexpr (P::kBlocks > 1) {
    __syncwarp();
    cluster_arrive();  // our barriers can be used
  }
  // Without offsets the tiles are known now, and the first weights are fetched while the previous kernel
  // ends.
  if (p.offsets) wait();
  const int rank = static_cast<int>(blockIdx.x) % P::kBlocks;
  const TileMap<P> map{start, row_start, p.num_groups, (p.n + P::kFeatures - 1) / P::kFeatures, rank};
  count_tiles<P>(p, map, start, row_start);
  if constexpr (P::kBlocks > 1) cluster_wait();
  const int num_steps = map.num_steps();
  const int first = static_cast<int>(blockIdx.x) / P::kBlocks;
  auto* const factors = reinterpret_cast<typename P::Factors*>(memory + P::kFactorsAt);
  const auto* const no_factors = reinterpret_cast<const typename P::Factors*>(start);  // any numbers
  static_assert(sizeof(typename P::Factors) <= 2 * P::kMapBytes);
  RingPosition<P::kFactorSets> set;

  if (warpgroup == P::kWarpgroups) {
    if constexpr (P::kWarpgroups > 1)
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(P::kProducerRegisters));
    const int warp = static_cast<int>(threadIdx.x) % 128 / 32;
    if (warp == kGatherWarps) {
      Steps<P> steps(p, shared, rank, num_steps);
      for (int step = first;; step = steps.after(step)) {
        barrier_wait(shared + P::kFactorsEmptyAt + set.stage * 8, set.parity ^ 1);
        const Tile tile = step < num_steps ? map.at(step) : Tile{.group = -1};
        if (threadIdx.x % 32 == 0) {
          factors[set.stage].tile = tile;
          barrier_arrive(shared + P::kTileFullAt + set.stage * 8);
        }
        if (tile.group < 0) break;
        if (step == first && !p.offsets) wait();
        load_factors<P>(p, tile, factors[set.stage]);
        barrier_arrive(shared + P::kFactorsFullAt + set.stage * 8);
        set.advance();
      }
    } else if (warp == 0 || (P::kGathers && p.gather)) {
      Producer<P, static_cast<int>(size_of(kType))> producer(p, maps, shared, rank);
      RingPosition<P::kStages> ring;
      const int num_blocks = p.full_blocks + (p.half_block ? 1 : 0);
      int ahead = 0;  // weights that are on their way already
      if (!p.offsets) {
        if (first < num_steps) {
          producer.begin(map.at(first));
          for (; ahead < min(P::kStages, num_blocks); ++ahead) producer.weights(ahead, ahead);
        }
        wait();
      }
      let_next_start();
      for (;; ahead = 0) {
        barrier_wait(shared + P::kTileFullAt + set.stage * 8, set.parity);
        const Tile tile = factors[set.stage].tile;
        barrier_arrive(shared + P::kFactorsEmptyAt + set.stage * 8);
        set.advance();
        if (tile.group < 0) break;
        producer.begin(tile);
        producer.begin_rows();
        for (int block = 0; block < num_blocks; ++block) {
          if (block >= ahead) {
            barrier_wait(shared + P::kEmptyAt + ring.stage * 8, ring.parity ^ 1);
            producer.weights(ring.stage, block);
          }
          producer.rows(ring.stage, block);
          ring.advance();
        }
      }
    }
  } else {
    if constexpr (P::kWarpgroups > 1)
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(P::kConsumerRegisters));
    uint8_t* const staged = memory + P::kStagedAt + warpgroup * P::kStagedBytes;
    uint32_t empty = shared + P::kEmptyAt;
    if constexpr (P::kBlocks > 1) empty = cluster_address(empty, static_cast<int>(threadIdx.x) % P::kBlocks);
    Consumer<kType, P> consumer{shared, warpgroup, p.gather, empty, {}, P::kStoresBoxes && p.stores_boxes};
    // Instructions of an epilogue that no tile has brought cost thousands of cycles. So there is one copy for
    // all tiles, and while the first data is on its way, a tile beyond the last feature goes through it.
    const Tile no_tile{.rows = P::kRows, .feature = p.n};
#pragma unroll 1
    for (bool is_first = true;; is_first = false) {
      if (!is_first) barrier_wait(shared + P::kTileFullAt + set.stage * 8, set.parity);
      const Tile tile = is_first ? no_tile : factors[set.stage].tile;
      if (tile.group < 0) break;
      uint32_t d[P::kRows / 2] = {};
      if (!is_first) {
        if (tile.rows == 0 || tile.feature + warpgroup * kBlockFeatures >= p.n) {
          consumer.release_kept();
          consumer.skip(p.full_blocks + (p.half_block ? 1 : 0));
        } else {
          with_columns_of<P::kRows>(tile.rows, [&](auto columns) {
            consumer.template accumulate<decltype(columns)::value>(d, p.full_blocks, p.half_block);
          });
        }
        barrier_wait(shared + P::kFactorsFullAt + set.stage * 8, set.parity);
      }
      const uint32_t kept = consumer.kept < 0 ? shared_address(staged) : consumer.weights_of(consumer.kept);
      Epilogue<kType, P>{p, maps, is_first ? *no_factors : factors[set.stage], staged, kept, tile, warpgroup}
          .run(d);
      if (is_first) {
        if (!p.offsets) wait();
        continue;
      }
      barrier_arrive(shared + P::kFactorsEmptyAt + set.stage * 8);
      set.advance();
    }
    if (P::kStoresBoxes) wait_for_reads_of_stores<0>();
  }
  // What follows waits for this kernel's end alone, which must not come before the previous one's.
  if (p.beside_previous) wait_for_previous();
  if constexpr (P::kBlocks > 1) {  // no block leaves while another may arrive at its barriers
    __syncwarp();
    cluster_arrive();
    cluster_wait();
  }
}

template <DType kType, SwiftTile kTile>
void launch_tile(const ExecContext& ctx, const SwiftMaps& maps, const SwiftGmmParams& params) {
  using P = Plan<kTile>;
  LaunchConfig config{.grid = dim3(static_cast<unsigned>(ctx.backend->info().num_sms)),
                      .block = dim3(P::kThreads),
                      .shared_bytes = P::kBytes,
                      .cluster = P::kBlocks};
  if constexpr (P::kBlocks > 1) {
    // No more than run at once: one that waited for another's end would double the time.
    const int clusters = clusters_at_once(ctx, "quant_matmul", swift_gmm_kernel<kType, kTile>, config);
    config.grid.x = static_cast<unsigned>(clusters * P::kBlocks);
  }
  launch(ctx, "quant_matmul", swift_gmm_kernel<kType, kTile>, config, maps, params);
}

}  // namespace moge::ops::cuda::swift

namespace moge::ops::cuda {

template <DType kType>
void launch_swift_gmm(const ExecContext& ctx, SwiftTile tile, const SwiftMaps& maps,
                      const SwiftGmmParams& params) {
  const auto launch_if = [&]<SwiftTile kTile>() {
    if (tile == kTile) swift::launch_tile<kType, kTile>(ctx, maps, params);
  };
  const auto launch_one_of = [&]<size_t... kIndex>(std::index_sequence<kIndex...>) {
    (launch_if.template operator()<static_cast<SwiftTile>(kIndex)>(), ...);
  };
  launch_one_of(std::make_index_sequence<kSwiftTiles.size()>{});
}

}  // namespace moge::ops::cuda
