#include "ops/cuda/launch.cuh"
#include "ops/cuda/sm90/swift_gather.h"

namespace moge::ops::cuda {

namespace {

constexpr int kThreads = 256;

/// A warp copies a row.
__global__ void gather_rows_kernel(uint4* to, const uint4* from, const int* row_ids, int num_rows, int units,
                                   int64_t from_stride) {
  wait_for_previous();
  let_next_start();
  const int r = static_cast<int>(blockIdx.x) * (kThreads / 32) + static_cast<int>(threadIdx.x) / 32;
  if (r >= num_rows) return;
  from += row_ids[r] * from_stride;
  to += int64_t{r} * units;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x) % 32; i < units; i += 32) to[i] = from[i];
}

}  // namespace

void gather_rows(const ExecContext& ctx, const QuantMatmul& a, void* to) {
  const int64_t rows = a.c.dim(0), element = size_of(a.a.dtype);
  constexpr int64_t kUnit = sizeof(uint4), kRows = kThreads / 32;
  launch(ctx, "quant_matmul: gather", gather_rows_kernel,
         {.grid = dim3(static_cast<unsigned>((rows + kRows - 1) / kRows)), .block = dim3(kThreads)},
         static_cast<uint4*>(to), static_cast<const uint4*>(a.a.data), a.row_ids.ptr<int32_t>(),
         static_cast<int>(rows), static_cast<int>(a.a.dim(1) * element / kUnit),
         a.a.stride(0) * element / kUnit);
}

}  // namespace moge::ops::cuda
