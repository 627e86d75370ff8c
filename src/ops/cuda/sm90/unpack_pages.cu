#include "ops/cuda/sm90/unpack_pages.h"

#include <cuda_fp8.h>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/mma.cuh"

namespace moge::ops::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kElements = 16;  // of a thread at a time

struct Pages {
  uint4* out;
  const uint4* pages;
  const float* scales;
};

struct Params {
  Pages of[2];
  const int32_t *block_table, *kv_lens;
  int64_t table_row;
  int MP, PS, Dh;
};

template <DType kDType>
__device__ __forceinline__ float to_float(uint8_t x) {
  if constexpr (kDType == DType::kI8)
    return static_cast<int8_t>(x);
  else
    return __half2float(__nv_cvt_fp8_to_halfraw(x, __NV_E4M3));
}

/// Block: (page of a sequence, KV head of the keys, then of the values, sequence).
template <DType kDType>
__global__ void __launch_bounds__(kThreads) unpack_pages_kernel(const __grid_constant__ Params p) {
  wait_for_previous();
  let_next_start();
  const int b = blockIdx.z, i = blockIdx.x, heads = gridDim.y / 2, head = blockIdx.y % heads;
  const Pages& of = p.of[blockIdx.y / heads];
  if (i * p.PS >= p.kv_lens[b]) return;
  const int64_t block = int64_t{p.block_table[b * p.table_row + i]} * heads + head;
  const int vectors = p.PS * p.Dh / kElements;
  const uint4* from = of.pages + block * vectors;
  const float* scales = of.scales + block * p.PS;
  uint4* to = of.out + ((int64_t{b} * p.MP + i) * heads + head) * vectors * 2;
#pragma unroll 4
  for (int j = threadIdx.x; j < vectors; j += kThreads) {
    const uint4 raw = from[j];
    const float scale = scales[j * kElements / p.Dh];
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    uint32_t pairs[8];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const auto at = [&](int byte) { return to_float<kDType>(words[w] >> (8 * byte) & 0xff) * scale; };
      pairs[2 * w] = pack<DType::kBF16>(at(0), at(1));
      pairs[2 * w + 1] = pack<DType::kBF16>(at(2), at(3));
    }
    to[2 * j] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    to[2 * j + 1] = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
  }
}

}  // namespace

void unpack_pages(ExecContext& ctx, const UnpackPages& a) {
  const auto MP = static_cast<unsigned>(a.block_table.dim(1)), KV = static_cast<unsigned>(a.k_pages.dim(1));
  const auto pages = [](const Tensor& out, const Tensor& from, const Tensor& scales) {
    return Pages{static_cast<uint4*>(out.data), static_cast<const uint4*>(from.data), scales.ptr<float>()};
  };
  const Params p{.of = {pages(a.k_out, a.k_pages, a.k_scales), pages(a.v_out, a.v_pages, a.v_scales)},
                 .block_table = a.block_table.ptr<int32_t>(),
                 .kv_lens = a.kv_lens.ptr<int32_t>(),
                 .table_row = a.block_table.stride(0),
                 .MP = static_cast<int>(MP),
                 .PS = static_cast<int>(a.k_pages.dim(2)),
                 .Dh = static_cast<int>(a.k_pages.dim(3))};
  const auto kernel =
      a.k_pages.dtype == DType::kI8 ? unpack_pages_kernel<DType::kI8> : unpack_pages_kernel<DType::kFP8E4M3>;
  launch(ctx, "unpack_pages", kernel,
         {.grid = dim3(MP, 2 * KV, static_cast<unsigned>(a.block_table.dim(0))), .block = kThreads}, p);
}

}  // namespace moge::ops::cuda
