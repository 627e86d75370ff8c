#include "ops/cuda/sm90/unpack_pages.h"

#include <cuda_fp16.h>
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

/// Two neighbouring elements times their row's scale, which sixteen-bit ones do not have.
template <DType kDType>
__device__ __forceinline__ uint32_t scaled_pair(uint32_t bits, float scale) {
  if constexpr (kDType == DType::kI8) {
    return pack<DType::kBF16>(static_cast<int8_t>(bits) * scale, static_cast<int8_t>(bits >> 8) * scale);
  } else if constexpr (kDType == DType::kFP8E4M3) {
    const auto pair = static_cast<__nv_fp8x2_storage_t>(bits);
    const float2 x = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(pair, __NV_E4M3)));
    return pack<DType::kBF16>(x.x * scale, x.y * scale);
  } else {
    const float2 x = __half22float2(reinterpret_cast<const __half2&>(bits));
    return pack<DType::kBF16>(x.x, x.y);
  }
}

/// Block: (page of a sequence, KV head of the keys, then of the values, sequence).
template <DType kDType>
__global__ void __launch_bounds__(kThreads) unpack_pages_kernel(const __grid_constant__ Params p) {
  wait_for_previous();
  let_next_start();
  const int b = blockIdx.z, i = blockIdx.x, heads = gridDim.y / 2, head = blockIdx.y % heads;
  const Pages& of = p.of[blockIdx.y / heads];
  const int rows = p.kv_lens[b] - i * p.PS;  // of the sequence, from this page on
  if (rows <= 0) return;
  const int64_t block = int64_t{p.block_table[b * p.table_row + i]} * heads + head;
  constexpr int kBytes = static_cast<int>(size_of(kDType)), kLoads = kElements * kBytes / 16;
  const int vectors = p.PS * p.Dh / kElements;
  const uint4* from = of.pages + block * vectors * kLoads;
  uint4* to = of.out + ((int64_t{b} * p.MP + i) * heads + head) * vectors * 2;
#pragma unroll 4
  for (int j = threadIdx.x; j < vectors; j += kThreads) {
    const int row = j * kElements / p.Dh;
    uint4 raw[kLoads] = {};
    float scale = 1;
    if (row < rows) {
#pragma unroll
      for (int k = 0; k < kLoads; ++k) raw[k] = from[j * kLoads + k];
      if constexpr (kBytes == 1) scale = of.scales[block * p.PS + row];
    }
    const auto pair = [&](int index) {
      const int byte = index * 2 * kBytes;
      const uint4& v = raw[byte / 16];
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
      return scaled_pair<kDType>(words[byte % 16 / 4] >> (byte % 4 * 8), scale);
    };
    to[2 * j] = make_uint4(pair(0), pair(1), pair(2), pair(3));
    to[2 * j + 1] = make_uint4(pair(4), pair(5), pair(6), pair(7));
  }
}

}  // namespace

void unpack_pages(ExecContext& ctx, const UnpackPages& a) {
  const auto MP = static_cast<unsigned>(a.block_table.dim(1)), KV = static_cast<unsigned>(a.k_pages.dim(1));
  const auto pages = [](const Tensor& out, const Tensor& from, const Tensor& scales) {
    return Pages{static_cast<uint4*>(out.data), static_cast<const uint4*>(from.data),
                 static_cast<const float*>(scales.data)};
  };
  const Params p{.of = {pages(a.k_out, a.k_pages, a.k_scales), pages(a.v_out, a.v_pages, a.v_scales)},
                 .block_table = a.block_table.ptr<int32_t>(),
                 .kv_lens = a.kv_lens.ptr<int32_t>(),
                 .table_row = a.block_table.stride(0),
                 .MP = static_cast<int>(MP),
                 .PS = static_cast<int>(a.k_pages.dim(2)),
                 .Dh = static_cast<int>(a.k_pages.dim(3))};
  const DType dtype = a.k_pages.dtype;
  const auto kernel = dtype == DType::kI8        ? unpack_pages_kernel<DType::kI8>
                      : dtype == DType::kFP8E4M3 ? unpack_pages_kernel<DType::kFP8E4M3>
                                                 : unpack_pages_kernel<DType::kF16>;
  launch(ctx, "unpack_pages", kernel,
         {.grid = dim3(MP, 2 * KV, static_cast<unsigned>(a.block_table.dim(0))), .block = kThreads}, p);
}

}  // namespace moge::ops::cuda
