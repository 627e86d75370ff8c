#include "ops/cuda/sm90/prefill.h"

#include <algorithm>
#include <numeric>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/sm90/prefill_consumer.cuh"
#include "ops/cuda/sm90/prefill_producer.cuh"
#include "ops/cuda/sm90/unpack_pages.h"
#include "ops/cuda/tensor_map.h"

namespace moge::ops::cuda {

namespace {

constexpr int kThreads = 3 * 128;  // a warpgroup that loads, two that calculate
/// Of a thread that loads and of one that calculates. A block that asks for more than it had at its launch
/// (65,536 over its threads, in eights) waits for ever.
constexpr int kLoadRegisters = 40, kRegisters = 232;
static_assert(kLoadRegisters + 2 * kRegisters <= kThreads / 128 * (65536 / kThreads / 8 * 8));
constexpr int kMaxSequences = 2048;
/// Pages that are not bf16 become that in the workspace, of as many sequences at a time as have this many
/// positions (or of one). Unpacking in the kernel would do the same work for every head and block of rows.
constexpr int64_t kUnpackedPositions = 32768;

__device__ PrefillSchedule schedule;

/// tiles[b]: blocks of query rows in the sequences before b. All threads of the block.
__device__ void count_tiles(const PrefillParams& a, int* tiles) {
  __shared__ int sums[kThreads / 32];
  const int tid = threadIdx.x, per_thread = (a.B + kThreads - 1) / kThreads;
  const int begin = min(tid * per_thread, a.B), end = min(begin + per_thread, a.B);
  const auto of = [&](int b) { return (a.cu_q[b + 1] - a.cu_q[b] + kPrefillRows - 1) / kPrefillRows; };
  int own = 0;
  for (int b = begin; b < end; ++b) own += of(b);
  int before = own;
  for (int d = 1; d < 32; d *= 2) {
    const int x = __shfl_up_sync(~0U, before, d);
    if (tid % 32 >= d) before += x;
  }
  if (tid % 32 == 31) sums[tid / 32] = before;
  __syncthreads();
  before -= own;
  for (int w = 0; w < tid / 32; ++w) before += sums[w];
  for (int b = begin; b < end; ++b) {
    tiles[b] = before;
    before += of(b);
  }
  if (begin < a.B && end == a.B) tiles[a.B] = before;
  __syncthreads();
}

template <int kDh>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_kernel(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                   const __grid_constant__ CUtensorMap v_map, const __grid_constant__ PrefillParams a) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const PrefillShared<kDh> layout(a.B);
  const uint32_t shared = shared_address(memory);
  if (threadIdx.x == 0) {
    constexpr int kWarps = 8;  // that calculate
    for (int i = 0; i < kPrefillStages; ++i) {
      barrier_init(shared + layout.q_full(i), 1);
      barrier_init(shared + layout.q_empty(i), 32 * kWarps);
      barrier_init(shared + layout.k_full(i), 1);
      barrier_init(shared + layout.k_empty(i), kWarps);
      barrier_init(shared + layout.v_full(i), 1);
      barrier_init(shared + layout.v_empty(i), kWarps);
    }
    barrier_init(shared + layout.tail(), 1);
    fence_barrier_init();
    prefetch_map(q_map);
    prefetch_map(k_map);
    prefetch_map(v_map);
  }
  constexpr uint32_t kOnes = 0x3f803f80U;  // two of bf16
  for (int i = threadIdx.x; i < PrefillShared<kDh>::kBlock / 16; i += kThreads)
    reinterpret_cast<uint4*>(memory + layout.ones)[i] = make_uint4(kOnes, kOnes, kOnes, kOnes);
  fence_async_proxy();
  wait_for_previous();
  let_next_start();
  count_tiles(a, reinterpret_cast<int*>(memory + layout.tiles));
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kLoadRegisters));
    if (threadIdx.x < 32) PrefillProducer<kDh>(a, q_map, k_map, v_map, layout, memory).run(schedule);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
    PrefillConsumer<kDh>(a, layout, memory).run();
  }
}

template <int kDh>
void launch_prefill(ExecContext& ctx, const Tensor& q, const Tensor& k_pages, const Tensor& v_pages,
                    const PrefillParams& p) {
  const char* op = "prefill";
  const auto pages_map = [&](const Tensor& pages) {
    return matrix_map(op, pages.data, DType::kBF16, pages.numel() / kDh, kDh, p.box_rows, 64);
  };
  const int64_t items = (q.dim(0) / kPrefillRows + p.B) * p.H;
  launch(ctx, op, prefill_kernel<kDh>,
         {.grid = static_cast<unsigned>(std::min<int64_t>(items, ctx.backend->info().num_sms)),
          .block = kThreads,
          .shared_bytes = PrefillShared<kDh>(p.B).bytes},
         heads_map(op, q, kPrefillRows), pages_map(k_pages), pages_map(v_pages), p);
}

/// Sequences whose pages are unpacked at a time.
int64_t unpacked_sequences(const PagedAttention& a) {
  const int64_t context = a.block_table.dim(1) * a.k_pages.dim(2);
  return std::clamp<int64_t>(kUnpackedPositions / std::max<int64_t>(context, 1), 1, a.kv_lens.dim(0));
}

bool unpacks(const PagedAttention& a) {
  return a.k_pages.dtype != DType::kBF16;
}

int64_t workspace_bytes(const ExecContext&, const PagedAttention& a) {
  if (!unpacks(a) || a.kv_lens.dim(0) == 0) return 0;
  const int64_t pages = unpacked_sequences(a) * a.block_table.dim(1);
  return 2 * pages * a.k_pages.stride(0) * size_of(DType::kBF16);
}

Refusal refusal(const PagedAttention& a) {
  const int64_t Dh = a.q.dim(2), PS = a.k_pages.dim(2);
  if (a.q.dtype != DType::kBF16) return str("q ", name_of(a.q.dtype), ": expected bf16");
  if (a.k_pages.dtype == DType::kF32) return "f32 pages: expected bf16, f16, i8 or fp8_e4m3";
  if (Dh != 64 && Dh != 128) return str("head dimension ", Dh, ": expected 64 or 128");
  if (PS % 16 != 0) return str("pages of ", PS, " positions: expected a multiple of 16");
  if (!(a.scale > 0)) return str("scale ", a.scale, ": expected a positive one");
  if (a.kv_lens.dim(0) > kMaxSequences)
    return str(a.kv_lens.dim(0), " sequences: expected at most ", kMaxSequences);
  if (!a.k_pages.is_contiguous() || !a.v_pages.is_contiguous())
    return "strided pages: expected contiguous ones";
  const auto aligned = [](const Tensor& x) {
    return x.stride(0) % 8 == 0 && x.stride(1) % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  };
  if (!aligned(a.q) || !aligned(a.out)) return "expected rows that begin at multiples of 16 bytes";
  return {};
}

void attend(ExecContext& ctx, const PagedAttention& a, const Tensor& k_pages, const Tensor& v_pages,
            bool block_table) {
  const auto PS = static_cast<int>(k_pages.dim(2));
  const PrefillParams p{.out = static_cast<__nv_bfloat16*>(a.out.data),
                        .block_table = block_table ? a.block_table.ptr<int32_t>() : nullptr,
                        .cu_q = a.cu_q.ptr<int32_t>(),
                        .kv_lens = a.kv_lens.ptr<int32_t>(),
                        .out_row = a.out.stride(0),
                        .out_head = a.out.stride(1),
                        .table_row = a.block_table.stride(0),
                        .B = static_cast<int>(a.kv_lens.dim(0)),
                        .H = static_cast<int>(a.q.dim(1)),
                        .KV = static_cast<int>(k_pages.dim(1)),
                        .MP = static_cast<int>(a.block_table.dim(1)),
                        .PS = PS,
                        .box_rows = std::gcd(PS, 64),
                        .scale_log2 = a.scale * 1.44269504F};
  if (a.q.dim(2) == 64) return launch_prefill<64>(ctx, a.q, k_pages, v_pages, p);
  launch_prefill<128>(ctx, a.q, k_pages, v_pages, p);
}

void run(ExecContext& ctx, const PagedAttention& a, std::span<std::byte> workspace) {
  const int64_t B = a.kv_lens.dim(0);
  if (a.q.dim(0) == 0 || B == 0) return;
  if (!unpacks(a)) return attend(ctx, a, a.k_pages, a.v_pages, true);
  for (int64_t begin = 0; begin < B; begin += unpacked_sequences(a)) {
    const int64_t end = std::min(begin + unpacked_sequences(a), B);
    PagedAttention part = a;
    part.block_table = a.block_table.slice(0, begin, end);
    part.kv_lens = a.kv_lens.slice(0, begin, end);
    part.cu_q = a.cu_q.slice(0, begin, end + 1);
    const Shape pages{(end - begin) * a.block_table.dim(1), a.k_pages.dim(1), a.k_pages.dim(2),
                      a.k_pages.dim(3)};
    const Tensor k(workspace.data(), DType::kBF16, pages, a.k_pages.device);
    const Tensor v(workspace.data() + k.bytes(), DType::kBF16, pages, a.k_pages.device);
    unpack_pages(ctx, {.k_out = k,
                       .v_out = v,
                       .k_pages = a.k_pages,
                       .v_pages = a.v_pages,
                       .k_scales = a.k_scales,
                       .v_scales = a.v_scales,
                       .block_table = part.block_table,
                       .kv_lens = part.kv_lens});
    attend(ctx, part, k, v, false);
  }
}

}  // namespace

const Impl<PagedAttention> prefill{"cuda.prefill", DeviceKind::kCuda, refusal, run, workspace_bytes};

}  // namespace moge::ops::cuda
