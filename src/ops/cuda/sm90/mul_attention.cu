#include "ops/cuda/sm90/mul_attention.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/sm90/mul_attention_consumer.cuh"
#include "ops/cuda/sm90/mul_attention_producer.cuh"
#include "ops/cuda/tensor_map.h"

namespace moge::ops::cuda {

namespace {

__device__ MulAttentionSchedule schedule;

/// Fills in units[0, B] and lengths[0, B) of a Plan and returns its unit_chunks. All threads of the block;
/// scratch: [2 warps].
template <int kThreads>
__device__ int plan_units(const MulAttentionParams& a, int* units, int* lengths, int* scratch) {
  const int tid = threadIdx.x;
  const int per_thread = ceil_div(a.B, kThreads);
  const int begin = min(tid * per_thread, a.B), end = min(begin + per_thread, a.B);
  int spans = 0, chunks = 0;
  for (int b = begin; b < end; ++b) {
    lengths[b] = max(a.kv_lens[b], 0);
    const int count = ceil_div(lengths[b], kChunkPositions);
    chunks += count;
    spans += ceil_div(count, kChunksPerSpan);
  }
  const int own_spans = spans, own_chunks = chunks;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int s = __shfl_up_sync(~0U, spans, d), c = __shfl_up_sync(~0U, chunks, d);
    if (tid % 32 >= d) spans += s, chunks += c;
  }
  if (tid % 32 == 31) scratch[tid / 32 * 2] = spans, scratch[tid / 32 * 2 + 1] = chunks;
  __syncthreads();
  int all_spans = 0;
  for (int w = 0; w < kThreads / 32; ++w) {
    if (w < tid / 32) spans += scratch[2 * w], chunks += scratch[2 * w + 1];
    all_spans += scratch[2 * w];
  }
  const bool by_chunk = all_spans * a.KV < a.chunk_spans;
  int before = by_chunk ? chunks - own_chunks : spans - own_spans;
  const int unit_chunks = by_chunk ? 1 : kChunksPerSpan;
  for (int b = begin; b < end; ++b) {
    units[b] = before;
    before += ceil_div(lengths[b], unit_chunks * kChunkPositions);
  }
  if (begin < a.B && end == a.B) units[a.B] = before;
  __syncthreads();
  return unit_chunks;
}

/// Zeros in the rows of idle sequences, and the plan for the combine kernel.
__device__ void store_rest(const MulAttentionParams& a, int Dh, const Plan& plan) {
  for (int b = blockIdx.x; b < a.B; b += gridDim.x) {
    if (plan.lengths[b] > 0) continue;
    const int heads = a.KV * a.G;
    for (int i = threadIdx.x; i < a.query_rows * heads * Dh; i += blockDim.x) {
      const int64_t token = static_cast<int64_t>(b) * a.query_rows + i / (heads * Dh);
      a.out[token * a.out_row + i / Dh % heads * a.out_head + i % Dh] = __float2bfloat16_rn(0);
    }
  }
  if (blockIdx.x > 0 || !a.plan) return;
  for (int b = threadIdx.x; b <= a.B; b += blockDim.x) a.plan[1 + b] = plan.units[b];
  if (threadIdx.x == 0) a.plan[0] = plan.unit_chunks;
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    mul_attention_kernel(const __grid_constant__ CUtensorMap k_map, const __grid_constant__ CUtensorMap v_map,
                         const __grid_constant__ MulAttentionParams a, int stages) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const MulAttentionShared<Config> layout(a.B, stages);
  const uint32_t shared = shared_address(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) {
      barrier_init(shared + layout.full(i), 1);
      barrier_init(shared + layout.empty(i), Config::kWarps);
    }
    for (int i = 0; i < kQueryStages; ++i) {
      barrier_init(shared + layout.query_full(i), 1);
      barrier_init(shared + layout.query_empty(i), Config::kWarps);
    }
    fence_barrier_init();
    prefetch_map(k_map);
    prefetch_map(v_map);
  }
  // Rows that only fill up the operand are read too.
  for (int i = threadIdx.x; i < kQueryStages * Config::kColumns * Config::kQueryRow / 4;
       i += Config::kThreads)
    reinterpret_cast<uint32_t*>(memory + layout.q)[i] = 0;
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  int* units = reinterpret_cast<int*>(memory + layout.units);
  int* lengths = reinterpret_cast<int*>(memory + layout.lengths);
  int* scratch = reinterpret_cast<int*>(memory + layout.maxima);
  const Plan plan{units, lengths, plan_units<Config::kThreads>(a, units, lengths, scratch)};
  if (threadIdx.x / 32 == Config::kWarps) {
    MulAttentionProducer<Config>(a, k_map, v_map, layout, memory).run(plan, schedule);
  } else {
    wait_for_previous();
    let_next_start();
    MulAttentionConsumer<Config>(a, layout, memory).run();
  }
  store_rest(a, Config::kDh, plan);
}

/// Merges what blocks left of the sequences with several units: block (b, KV head), rows along y. Threads:
/// (element of the head, one of kGroups spans at a time).
template <int kDh>
__global__ void __launch_bounds__(kDh * 4) combine_kernel(const __grid_constant__ MulAttentionParams a) {
  constexpr int kGroups = 4;
  __shared__ float values[kGroups][kDh];
  __shared__ SoftmaxState states[kGroups];
  wait_for_previous();
  let_next_start();
  const int b = blockIdx.x / a.KV, kv_head = blockIdx.x % a.KV;
  const int64_t first = a.plan[1 + b];
  const int count = a.plan[2 + b] - static_cast<int>(first);
  if (count <= 1) return;
  const int per_span = kChunksPerSpan / a.plan[0];
  const int spans = ceil_div(count, per_span);
  const int d = threadIdx.x, group = threadIdx.y;
  for (int r = blockIdx.y; r < a.R(); r += gridDim.y) {
    SoftmaxState all;
    float value = 0;
    for (int span = 0; span < spans; span += kGroups) {
      const int own = span + group;
      if (own < spans) {
        float m[kChunksPerSpan], l[kChunksPerSpan], o[kChunksPerSpan];
#pragma unroll
        for (int i = 0; i < kChunksPerSpan; ++i) {
          const int unit = own * per_span + i;
          if (i >= per_span || unit >= count) break;
          const int64_t row = ((first + unit) * a.KV + kv_head) * a.R() + r;
          m[i] = a.state[2 * row];
          l[i] = a.state[2 * row + 1];
          o[i] = a.partial[row * kDh + d];
        }
        SoftmaxState state;
        float merged = 0;
#pragma unroll
        for (int i = 0; i < kChunksPerSpan; ++i) {
          if (i >= per_span || own * per_span + i >= count) break;
          float keep, add;
          state.merge(m[i], l[i], keep, add);
          merged = merge_value(merged, o[i], keep, add);
        }
        values[group][d] = merged;
        if (d == 0) states[group] = state;
      }
      __syncthreads();
      for (int i = 0; i < kGroups && span + i < spans; ++i) {
        float keep, add;
        all.merge(states[i].m, states[i].l, keep, add);
        value = merge_value(value, values[i][d], keep, add);
      }
      __syncthreads();
    }
    if (group == 0) {
      const int64_t token = static_cast<int64_t>(b) * a.query_rows + r / a.G;
      a.out[token * a.out_row + (kv_head * a.G + r % a.G) * a.out_head + d] =
          __float2bfloat16_rn(__fmul_rn(value, all.inverse_sum()));
    }
  }
}

struct Sizes {
  explicit Sizes(const ExecContext& ctx, const PagedAttention& a)
      : B(a.kv_lens.dim(0)),
        KV(a.k_pages.dim(1)),
        R(a.decode_rows * a.q.dim(1) / KV),
        Dh(a.q.dim(2)),
        columns(R <= 8    ? 8
                : R <= 16 ? 16
                          : 40),
        max_chunks(ceil(a.block_table.dim(1) * a.k_pages.dim(2), kChunkPositions)),
        slots(static_cast<int64_t>(ctx.backend->info().num_sms) * (columns > 16 ? 1 : 2)),
        grid(std::min(slots, B * KV * max_chunks)) {}
  static int64_t ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }
  int64_t all_units() const {
    const int64_t spans = B * KV * ceil(max_chunks, kChunksPerSpan);
    return std::max(spans, std::min(spans, kMostChunkRounds * slots) * kChunksPerSpan);
  }
  /// A sequence may have more than one unit.
  bool combine() const { return max_chunks > 1; }
  int64_t plan_bytes() const { return ceil((B + 2) * 4, 256) * 256; }
  int64_t state_bytes() const { return ceil(all_units() * R * 8, 256) * 256; }
  int64_t partial_bytes() const { return all_units() * R * Dh * 4; }

  int64_t B, KV, R, Dh;
  int columns;
  int64_t max_chunks, slots, grid;
  /// In rounds of all blocks through their units: chunks are units at most below so many of spans.
  static constexpr int64_t kMostChunkRounds = 4;
};

template <class Config>
void launch_mul_attention(ExecContext& ctx, const PagedAttention& a, const MulAttentionParams& p,
                          const Sizes& n) {
  const char* op = "mul_attention";
  using Tile = typename Config::Tile;
  const auto map = [&](const Tensor& pages) {
    return matrix_map(op, pages.data, Config::kKv, pages.numel() / Config::kDh, Config::kDh,
                      1 << p.log2_box_rows, Config::kDh / Tile::kBoxes, L2Fetch::k128);
  };
  // An SM has 228 KiB, of which each block takes one for the system.
  constexpr int kLimit = (228 / Config::kBlocksPerSm - 1) * 1024;
  int stages = 16;
  const auto bytes = [&] { return MulAttentionShared<Config>(p.B, stages).bytes; };
  while (stages > 4 && bytes() > kLimit) --stages;
  launch(ctx, op, mul_attention_kernel<Config>,
         {.grid = static_cast<unsigned>(n.grid), .block = Config::kThreads, .shared_bytes = bytes()},
         map(a.k_pages), map(a.v_pages), p, stages);
  if (!n.combine()) return;
  const int64_t pairs = n.B * n.KV;
  launch(ctx, op, combine_kernel<Config::kDh>,
         {.grid = dim3(static_cast<unsigned>(pairs), pairs <= 256 ? static_cast<unsigned>(n.R) : 1),
          .block = dim3(Config::kDh, 4)},
         p);
}

template <DType kKv, int kDh>
void launch_columns(ExecContext& ctx, const PagedAttention& a, const MulAttentionParams& p, const Sizes& n) {
  if (n.columns == 8) return launch_mul_attention<MulAttentionConfig<kKv, kDh, 8>>(ctx, a, p, n);
  if (n.columns == 16) return launch_mul_attention<MulAttentionConfig<kKv, kDh, 16>>(ctx, a, p, n);
  launch_mul_attention<MulAttentionConfig<kKv, kDh, 40>>(ctx, a, p, n);
}

template <DType kKv>
void launch_dh(ExecContext& ctx, const PagedAttention& a, const MulAttentionParams& p, const Sizes& n) {
  if (n.Dh == 64) return launch_columns<kKv, 64>(ctx, a, p, n);
  launch_columns<kKv, 128>(ctx, a, p, n);
}

}  // namespace

Refusal mul_attention_refusal(const PagedAttention& a) {
  const int64_t Dh = a.q.dim(2), PS = a.k_pages.dim(2), R = a.decode_rows * a.q.dim(1) / a.k_pages.dim(1);
  if (a.decode_rows <= 0) return "decode_rows 0: expected the same number of query rows in all sequences";
  if (a.q.dim(0) != a.kv_lens.dim(0) * a.decode_rows)
    return str(a.q.dim(0), " query rows: expected ", a.decode_rows, " for each of ", a.kv_lens.dim(0),
               " sequences");
  if (a.q.dtype != DType::kBF16) return str("q ", name_of(a.q.dtype), ": expected bf16");
  if (a.k_pages.dtype == DType::kF32) return "f32 pages: expected bf16, i8 or fp8_e4m3";
  if (Dh != 64 && Dh != 128) return str("head dimension ", Dh, ": expected 64 or 128");
  if (PS % 16 != 0) return str("pages of ", PS, " positions: expected a multiple of 16");
  if (R > 40) return str(R, " query rows for a KV head: expected at most 40");
  if (a.kv_lens.dim(0) > 2048) return str(a.kv_lens.dim(0), " sequences: expected at most 2048");
  if (!a.k_pages.is_contiguous() || !a.v_pages.is_contiguous())
    return "strided pages: expected contiguous ones";
  if (a.q.stride(0) % 8 != 0 || a.q.stride(1) % 8 != 0 || reinterpret_cast<uintptr_t>(a.q.data) % 16 != 0)
    return "q: expected rows that begin at multiples of 16 bytes";
  return {};
}

int64_t mul_attention_workspace(const ExecContext& ctx, const PagedAttention& a) {
  const Sizes n(ctx, a);
  return n.combine() ? n.plan_bytes() + n.state_bytes() + n.partial_bytes() : 0;
}

void mul_attention(ExecContext& ctx, const PagedAttention& a, std::span<std::byte> workspace, Split split) {
  const Sizes n(ctx, a);
  if (n.B == 0) return;
  std::byte* memory = workspace.data();
  const auto PS = static_cast<int>(a.k_pages.dim(2));
  // Chunks cost more than spans, but with few spans blocks have nothing to do. Measured: the two are alike
  // where spans occupy half of the blocks, with eight-bit pages, which keep a block longer, three fifths.
  const int64_t chunk_spans = split == Split::kSpans          ? 0
                              : split == Split::kChunks       ? Sizes::kMostChunkRounds * n.slots
                              : size_of(a.k_pages.dtype) == 1 ? n.slots * 3 / 5
                                                              : n.slots / 2;
  const MulAttentionParams p{.out = static_cast<__nv_bfloat16*>(a.out.data),
                             .q = static_cast<const __nv_bfloat16*>(a.q.data),
                             .k_scales = static_cast<const float*>(a.k_scales.data),
                             .v_scales = static_cast<const float*>(a.v_scales.data),
                             .block_table = a.block_table.ptr<int32_t>(),
                             .kv_lens = a.kv_lens.ptr<int32_t>(),
                             .out_row = a.out.stride(0),
                             .out_head = a.out.stride(1),
                             .q_row = a.q.stride(0),
                             .q_head = a.q.stride(1),
                             .table_row = a.block_table.stride(0),
                             .B = static_cast<int>(n.B),
                             .KV = static_cast<int>(n.KV),
                             .G = static_cast<int>(a.q.dim(1) / n.KV),
                             .query_rows = a.decode_rows,
                             .PS = PS,
                             .log2_box_rows = std::countr_zero(static_cast<unsigned>(std::gcd(PS, 64))),
                             .chunk_spans = static_cast<int>(chunk_spans),
                             .scale_log2 = a.scale * 1.44269504F,
                             .plan = n.combine() ? reinterpret_cast<int32_t*>(memory) : nullptr,
                             .state = reinterpret_cast<float*>(memory + n.plan_bytes()),
                             .partial = reinterpret_cast<float*>(memory + n.plan_bytes() + n.state_bytes())};
  switch (a.k_pages.dtype) {
    case DType::kI8:
      return launch_dh<DType::kI8>(ctx, a, p, n);
    case DType::kFP8E4M3:
      return launch_dh<DType::kFP8E4M3>(ctx, a, p, n);
    default:
      return launch_dh<DType::kBF16>(ctx, a, p, n);
  }
}

}  // namespace moge::ops::cuda
