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

/// plan_units() of one sequence, of this length.
__device__ __forceinline__ Plan plan_one(const MulAttentionParams& a, int* units, int* lengths, int length) {
  length = max(length, 0);
  const int chunks = ceil_div(length, kChunkPositions);
  const int fine = Plan::count(chunks, kChunksPerSpan), coarse = Plan::count(chunks, kChunksPerUnit);
  const bool by_chunk = Plan::by_chunks(a, fine), is_fine = coarse * a.KV <= a.tail_units;
  if (threadIdx.x == 0) {
    units[0] = 0;
    units[1] = by_chunk ? chunks : is_fine ? fine : coarse;
    lengths[0] = length;
  }
  __syncthreads();
  return {units, lengths, by_chunk, by_chunk || !is_fine ? 1 : 0};
}

/// Makes the Plan, in units [B + 1] and lengths [B]. All threads of the block; scratch: [3 warps + 1].
template <int kThreads>
__device__ __noinline__ Plan plan_units(const MulAttentionParams& a, int* units, int* lengths, int* scratch) {
  constexpr int kWarps = kThreads / 32;
  const int tid = threadIdx.x;
  const int per_thread = ceil_div(a.B, kThreads);
  const int begin = min(tid * per_thread, a.B), end = min(begin + per_thread, a.B);
  const auto chunks_of = [&](int b) { return ceil_div(lengths[b], kChunkPositions); };
  int chunks = 0, fine = 0, coarse = 0;  // units of each kind, in the sequences before this thread's
  for (int b = begin; b < end; ++b) {
    lengths[b] = max(a.kv_lens[b], 0);
    const int count = chunks_of(b);
    chunks += count;
    fine += Plan::count(count, kChunksPerSpan);
    coarse += Plan::count(count, kChunksPerUnit);
  }
  const int own_chunks = chunks, own_fine = fine, own_coarse = coarse;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int x = __shfl_up_sync(~0U, chunks, d), y = __shfl_up_sync(~0U, fine, d),
              z = __shfl_up_sync(~0U, coarse, d);
    if (tid % 32 >= d) chunks += x, fine += y, coarse += z;
  }
  if (tid % 32 == 31) {
    int* of_warp = scratch + tid / 32 * 3;
    of_warp[0] = chunks, of_warp[1] = fine, of_warp[2] = coarse;
  }
  __syncthreads();
  chunks -= own_chunks, fine -= own_fine, coarse -= own_coarse;
  int all_fine = 0, all_coarse = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const int* of_warp = scratch + w * 3;
    if (w < tid / 32) chunks += of_warp[0], fine += of_warp[1], coarse += of_warp[2];
    all_fine += of_warp[1];
    all_coarse += of_warp[2];
  }
  Plan plan{units, lengths, Plan::by_chunks(a, all_fine), a.B};
  int before = chunks;
  if (!plan.by_chunk) {
    const bool is_fine = (all_coarse - coarse) * a.KV <= a.tail_units;
    const int fine_thread = __syncthreads_count(!is_fine);
    if (tid == fine_thread) scratch[3 * kWarps] = coarse - fine;
    __syncthreads();
    plan.fine_from = min(fine_thread * per_thread, a.B);
    before = is_fine ? fine + scratch[3 * kWarps] : coarse;
  }
  for (int b = begin; b < end; ++b) {
    units[b] = before;
    before += Plan::count(chunks_of(b), plan.unit_chunks(b));
  }
  if (begin < a.B && end == a.B) units[a.B] = before;
  __syncthreads();
  return plan;
}

/// Zeros in the rows of idle sequences.
__device__ void store_idle(const MulAttentionParams& a, int Dh, const int* lengths) {
  for (int b = blockIdx.x; b < a.B; b += gridDim.x) {
    if (lengths[b] > 0) continue;
    const int heads = a.KV * a.G;
    for (int i = threadIdx.x; i < a.query_rows * heads * Dh; i += blockDim.x) {
      const int64_t token = static_cast<int64_t>(b) * a.query_rows + i / (heads * Dh);
      a.out[token * a.out_row + i / Dh % heads * a.out_head + i % Dh] = __float2bfloat16_rn(0);
    }
  }
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    mul_attention_kernel(const __grid_constant__ CUtensorMap k_map, const __grid_constant__ CUtensorMap v_map,
                         const __grid_constant__ MulAttentionParams a, int stages) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const int first_length = __ldg(a.kv_lens);
  const MulAttentionShared<Config> layout(a.B, stages);
  int* units = reinterpret_cast<int*>(memory + layout.units);
  int* lengths = reinterpret_cast<int*>(memory + layout.lengths);
  const auto plan = [&]() -> Plan {
    if (a.B == 1) return plan_one(a, units, lengths, first_length);
    return plan_units<Config::kThreads>(a, units, lengths, reinterpret_cast<int*>(memory + layout.maxima));
  };
  if (threadIdx.x / 32 == Config::kWarps) {
    const int first_pages = MulAttentionProducer<Config>::guess_pages(a);
    MulAttentionProducer<Config> producer(a, k_map, v_map, layout, memory);
    producer.begin(first_length, first_pages);
    producer.run(plan(), schedule);
  } else {
    // Rows that only fill up the operand are read too.
    for (int i = threadIdx.x; i < kQueryStages * Config::kColumns * Config::kQueryRow / 4;
         i += Config::kWarps * 32)
      reinterpret_cast<uint32_t*>(memory + layout.q)[i] = 0;
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    const Plan of_block = plan();
    wait_for_previous();
    let_next_start();
    MulAttentionConsumer<Config>(a, layout, memory).run(of_block, schedule);
  }
  store_idle(a, Config::kDh, lengths);
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
  /// Parts of all KV heads: a span each, or a chunk, while chunks are units: at most five to a unit of a
  /// span.
  int64_t all_parts() const {
    return std::max(B * KV * max_spans(), std::min(B * KV * max_chunks, 5 * chunk_units()));
  }
  int64_t max_spans() const { return ceil(max_chunks, kChunksPerSpan); }
  /// Chunks cost more than spans, but with few spans blocks have nothing to do.
  int64_t chunk_units() const { return slots / 2; }
  int64_t state_bytes() const { return ceil(all_parts() * R * 16, 256) * 256; }
  int64_t partial_bytes() const { return all_parts() * R * Dh * 4; }

  int64_t B, KV, R, Dh;
  int columns;
  int64_t max_chunks, slots, grid;
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
  // An SM has 228 KiB, of which each block takes one for the system. Few blocks, of a chunk each, get a ring
  // for all of it, which also keeps two of them from sharing an SM.
  const bool few = Config::kBlocksPerSm > 1 && n.grid <= ctx.backend->info().num_sms;
  const int limit = (few ? 160 : 228 / Config::kBlocksPerSm - 1) * 1024;
  int stages = 16;
  const auto bytes = [&] { return MulAttentionShared<Config>(p.B, stages).bytes; };
  while (stages > kMinStages && bytes() > limit) --stages;
  launch(ctx, op, mul_attention_kernel<Config>,
         {.grid = static_cast<unsigned>(n.grid), .block = Config::kThreads, .shared_bytes = bytes()},
         map(a.k_pages), map(a.v_pages), p, stages);
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
  if (a.k_pages.dtype == DType::kF32) return "f32 pages: expected bf16, f16, i8 or fp8_e4m3";
  if (Dh != 64 && Dh != 128) return str("head dimension ", Dh, ": expected 64 or 128");
  if (PS % 16 != 0) return str("pages of ", PS, " positions: expected a multiple of 16");
  if (R > 40) return str(R, " query rows for a KV head: expected at most 40");
  if (a.kv_lens.dim(0) > 2048) return str(a.kv_lens.dim(0), " sequences: expected at most 2048");
  if (a.kv_lens.dim(0) * a.k_pages.dim(1) > MulAttentionSchedule::kMaxPairs)
    return str(a.kv_lens.dim(0), " sequences of ", a.k_pages.dim(1),
               " KV heads: expected a product of at most ", MulAttentionSchedule::kMaxPairs);
  if (!a.k_pages.is_contiguous() || !a.v_pages.is_contiguous())
    return "strided pages: expected contiguous ones";
  const auto aligned = [](const Tensor& x) {
    return x.stride(0) % 8 == 0 && x.stride(1) % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  };
  if (!aligned(a.q) || !aligned(a.out)) return "expected rows that begin at multiples of 16 bytes";
  return {};
}

int64_t mul_attention_workspace(const ExecContext& ctx, const PagedAttention& a) {
  const Sizes n(ctx, a);
  return n.max_chunks > 1 ? n.state_bytes() + n.partial_bytes() : 0;
}

void mul_attention(ExecContext& ctx, const PagedAttention& a, std::span<std::byte> workspace) {
  const Sizes n(ctx, a);
  if (n.B == 0) return;
  std::byte* memory = workspace.data();
  const auto PS = static_cast<int>(a.k_pages.dim(2));
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
                             .table_pages = static_cast<int>(a.block_table.dim(1)),
                             .max_spans = static_cast<int>(n.max_spans()),
                             .chunk_units = static_cast<int>(n.chunk_units()),
                             .tail_units = static_cast<int>(n.slots),
                             .scale_log2 = a.scale * 1.44269504F,
                             .state = reinterpret_cast<float*>(memory),
                             .partial = reinterpret_cast<float*>(memory + n.state_bytes())};
  switch (a.k_pages.dtype) {
    case DType::kF16:
      return launch_dh<DType::kF16>(ctx, a, p, n);
    case DType::kI8:
      return launch_dh<DType::kI8>(ctx, a, p, n);
    case DType::kFP8E4M3:
      return launch_dh<DType::kFP8E4M3>(ctx, a, p, n);
    default:
      return launch_dh<DType::kBF16>(ctx, a, p, n);
  }
}

}  // namespace moge::ops::cuda
