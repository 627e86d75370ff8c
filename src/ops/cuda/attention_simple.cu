// A block per query row and head walks the row's positions in tiles of as many as it has threads: a thread
// scores one position, then weighs one element of the values. All fp32. Bound by latency; nothing here is
// tuned.
#include "ops/cuda/attention_simple.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/mma.cuh"
#include "ops/cuda/plain_kernel.h"
#include "ops/cuda/sm90/mul_attention.h"
#include "ops/cuda/sm90/prefill.h"

namespace moge::ops::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kMaxDh = 512;

struct Params {
  void* out;
  const void *q, *k_pages, *v_pages;
  const float *k_scales, *v_scales;
  const int32_t *block_table, *cu_q, *kv_lens;
  int64_t out_row, out_head, q_row, q_head, table_row;
  int64_t page, page_head, page_row, scale_page, scale_head;
  int B, G, Dh, PS;
  float scale_log2;
};

__device__ float to_float(float x) {
  return x;
}
__device__ float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ float to_float(__half x) {
  return __half2float(x);
}
__device__ float to_float(int8_t x) {
  return x;
}
__device__ float to_float(__nv_fp8_e4m3 x) {
  return static_cast<float>(x);
}
__device__ void store(float* to, float x) {
  *to = x;
}
__device__ void store(__nv_bfloat16* to, float x) {
  *to = __float2bfloat16_rn(x);
}

/// A value of every thread, combined for all. scratch: [kThreads / 32].
template <class Combine>
__device__ float block_reduce(float x, float* scratch, Combine combine) {
  for (int d = 16; d > 0; d /= 2) x = combine(x, __shfl_xor_sync(~0U, x, d));
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w) x = w == 0 ? scratch[0] : combine(x, scratch[w]);
  return x;
}

template <class Q, class Kv>
__global__ void __launch_bounds__(kThreads) paged_attention_kernel(const __grid_constant__ Params p) {
  __shared__ float q[kMaxDh], weights[kThreads], scratch[kThreads / 32];
  __shared__ int64_t v_rows[kThreads];
  wait_for_previous();
  let_next_start();
  const int t = blockIdx.x, h = blockIdx.y, tid = threadIdx.x;
  int b = 0, high = p.B;  // cu_q[b] <= t < cu_q[high]
  while (high - b > 1) {
    const int middle = (b + high) / 2;
    (p.cu_q[middle] <= t ? b : high) = middle;
  }
  Q* out = static_cast<Q*>(p.out) + t * p.out_row + h * p.out_head;
  const int length = p.kv_lens[b];
  const int visible = length - (p.cu_q[b + 1] - t) + 1;
  const Q* q_row = static_cast<const Q*>(p.q) + t * p.q_row + h * p.q_head;
  for (int d = tid; d < p.Dh; d += kThreads) q[d] = to_float(q_row[d]);
  constexpr int kElements = kMaxDh / kThreads;
  float o[kElements] = {}, m = -INFINITY, l = 0;
  for (int begin = 0; begin < visible && length > 0; begin += kThreads) {
    __syncthreads();
    const int position = begin + tid;
    float score = -INFINITY, v_scale = 1;
    if (position < visible) {
      const int64_t page = p.block_table[b * p.table_row + position / p.PS];
      const int64_t in_page = position % p.PS, kv = h / p.G;
      v_rows[tid] = page * p.page + kv * p.page_head + in_page * p.page_row;
      const Kv* k = static_cast<const Kv*>(p.k_pages) + v_rows[tid];
      float sum = 0;
      for (int d = 0; d < p.Dh; ++d) sum += q[d] * to_float(k[d]);
      score = sum * p.scale_log2;
      if (p.k_scales) {
        const int64_t row = page * p.scale_page + kv * p.scale_head + in_page;
        score *= p.k_scales[row];
        v_scale = p.v_scales[row];
      }
    }
    const float m_next = fmaxf(m, block_reduce(score, scratch, [](float x, float y) { return fmaxf(x, y); }));
    const float keep = exp2_approx(m - m_next), weight = exp2_approx(score - m_next);
    l = l * keep + block_reduce(weight, scratch, [](float x, float y) { return x + y; });
    m = m_next;
    weights[tid] = weight * v_scale;
    __syncthreads();
    const int count = min(kThreads, visible - begin);
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      const int d = tid + i * kThreads;
      if (d >= p.Dh) break;
      o[i] *= keep;
      for (int j = 0; j < count; ++j)
        o[i] += weights[j] * to_float(static_cast<const Kv*>(p.v_pages)[v_rows[j] + d]);
    }
  }
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    const int d = tid + i * kThreads;
    if (d < p.Dh) store(out + d, l > 0 ? o[i] / l : 0.0F);
  }
}

Refusal refusal(const PagedAttention& a) {
  if (a.q.dim(2) > kMaxDh) return str("head dimension ", a.q.dim(2), ": expected at most ", kMaxDh);
  const auto whole_rows = [](const Tensor& x) { return !x || x.stride(-1) == 1; };
  if (!whole_rows(a.q) || !whole_rows(a.out) || !whole_rows(a.k_pages) || !whole_rows(a.v_pages) ||
      !whole_rows(a.k_scales) || !whole_rows(a.v_scales) || !whole_rows(a.block_table))
    return "expected rows of adjacent elements";
  if (a.k_pages.strides != a.v_pages.strides || a.k_scales.strides != a.v_scales.strides)
    return "expected k's and v's pages to lie alike";
  return {};
}

template <class Q, class Kv>
void launch_types(ExecContext& ctx, const PagedAttention& a) {
  const bool scales{a.k_scales};
  const Params p{.out = a.out.data,
                 .q = a.q.data,
                 .k_pages = a.k_pages.data,
                 .v_pages = a.v_pages.data,
                 .k_scales = scales ? a.k_scales.ptr<float>() : nullptr,
                 .v_scales = scales ? a.v_scales.ptr<float>() : nullptr,
                 .block_table = a.block_table.ptr<int32_t>(),
                 .cu_q = a.cu_q.ptr<int32_t>(),
                 .kv_lens = a.kv_lens.ptr<int32_t>(),
                 .out_row = a.out.stride(0),
                 .out_head = a.out.stride(1),
                 .q_row = a.q.stride(0),
                 .q_head = a.q.stride(1),
                 .table_row = a.block_table.stride(0),
                 .page = a.k_pages.stride(0),
                 .page_head = a.k_pages.stride(1),
                 .page_row = a.k_pages.stride(2),
                 .scale_page = scales ? a.k_scales.stride(0) : 0,
                 .scale_head = scales ? a.k_scales.stride(1) : 0,
                 .B = static_cast<int>(a.kv_lens.dim(0)),
                 .G = static_cast<int>(a.q.dim(1) / a.k_pages.dim(1)),
                 .Dh = static_cast<int>(a.q.dim(2)),
                 .PS = static_cast<int>(a.k_pages.dim(2)),
                 .scale_log2 = a.scale * 1.44269504F};
  launch(
      ctx, "paged_attention", paged_attention_kernel<Q, Kv>,
      {.grid = dim3(static_cast<unsigned>(a.q.dim(0)), static_cast<unsigned>(a.q.dim(1))), .block = kThreads},
      p);
}

template <class Q>
void launch_pages(ExecContext& ctx, const PagedAttention& a) {
  switch (a.k_pages.dtype) {
    case DType::kI8:
      return launch_types<Q, int8_t>(ctx, a);
    case DType::kFP8E4M3:
      return launch_types<Q, __nv_fp8_e4m3>(ctx, a);
    case DType::kBF16:
      return launch_types<Q, __nv_bfloat16>(ctx, a);
    case DType::kF16:
      return launch_types<Q, __half>(ctx, a);
    default:
      return launch_types<Q, float>(ctx, a);
  }
}

void run(ExecContext& ctx, const PagedAttention& a, std::span<std::byte>) {
  if (a.q.dim(0) == 0) return;
  warn_of_plain_kernel("paged_attention", a.decode_rows > 0 ? mul_attention_refusal(a) : prefill.supports(a));
  if (a.q.dtype == DType::kBF16) return launch_pages<__nv_bfloat16>(ctx, a);
  launch_pages<float>(ctx, a);
}

}  // namespace

const Impl<PagedAttention> paged_attention_simple{"cuda.simple", DeviceKind::kCuda, refusal, run};

}  // namespace moge::ops::cuda
