// Eight elements a thread and step, each from two numbers of the Philox stream (core/rng.h). Bound by its
// integer arithmetic: some 75 instructions an element.
#include "ops/cuda/random_fill.h"

#include <algorithm>

#include "core/rng.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vec.cuh"

namespace moge::ops::cuda {

namespace {

__device__ __forceinline__ float uniform(uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24F;
}

/// Rng(seed).normal(8 block + i), i = 0 .. 7.
__device__ __forceinline__ void normals(float (&x)[kVec], uint64_t seed, uint64_t block) {
#pragma unroll
  for (int i = 0; i < kVec; i += 2) {
    const uint64_t counter = block * (kVec / 2) + i / 2;
    const auto bits = philox4x32({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0},
                                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
#pragma unroll
    for (int j = 0; j < 2; ++j)
      x[i + j] =
          sqrtf(-2.0F * logf(1.0F - uniform(bits[2 * j]))) * cosf(6.28318530718F * uniform(bits[2 * j + 1]));
  }
}

/// The elements after the last whole vector are stored one by one, through a vector in local memory. The next
/// kernel is not let in early: kernels may read weights before they wait.
template <class X>
__global__ void __launch_bounds__(256)
    random_fill_kernel(X* to, int64_t n, float std, uint64_t seed, bool of_bf16) {
  wait_for_previous();
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t block = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; block * kVec < n; block += step) {
    float x[kVec];
    normals(x, seed, static_cast<uint64_t>(block));
#pragma unroll
    for (float& v : x) {
      v *= std;
      if (of_bf16) v = __bfloat162float(__float2bfloat16_rn(v));
      if constexpr (std::is_same_v<X, int8_t>) v = fminf(fmaxf(v, -127.0F), 127.0F);
    }
    if (block * kVec + kVec <= n) {
      store_vec(to + block * kVec, x);
    } else {
      alignas(16) X last[kVec];
      store_vec(last, x);
      for (int64_t i = block * kVec; i < n; ++i) to[i] = last[i - block * kVec];
    }
  }
}

Refusal supports(const RandomFill& a) {
  return reinterpret_cast<uintptr_t>(a.x.data) % 16 == 0 ? "" : "x: expected memory aligned to 16 bytes";
}

template <class X>
void run_as(ExecContext& ctx, const RandomFill& a) {
  const int64_t n = a.x.numel();
  const int64_t blocks = (n + 256 * kVec - 1) / (256 * kVec);
  const int64_t resident = int64_t{ctx.backend->info().num_sms} * 8;
  launch(ctx, "random_fill", random_fill_kernel<X>,
         {.grid = static_cast<unsigned>(std::min(blocks, resident)), .block = 256}, a.x.ptr<X>(), n,
         fill_std(a), a.seed, a.of_bf16);
}

void run(ExecContext& ctx, const RandomFill& a, std::span<std::byte>) {
  if (a.x.numel() == 0) return;
  switch (a.x.dtype) {
    case DType::kF32:
      return run_as<float>(ctx, a);
    case DType::kBF16:
      return run_as<BF16>(ctx, a);
    case DType::kF16:
      return run_as<F16>(ctx, a);
    case DType::kI8:
      return run_as<int8_t>(ctx, a);
    default:
      return run_as<FP8E4M3>(ctx, a);
  }
}

}  // namespace

std::vector<Impl<RandomFill>> random_fill_impls() {
  return {{"cuda.philox", DeviceKind::kCuda, supports, run}};
}

}  // namespace moge::ops::cuda
