// A thread per angle, which it computes in double: position * theta^(-2i/Dh) needs more digits than fp32 has,
// and double is half as fast as single on this chip.
#include "ops/cuda/rope.h"

#include <cmath>

#include "ops/cuda/launch.cuh"

namespace moge::ops::cuda {

namespace {

constexpr int kThreads = 128;

__global__ void rope_table_kernel(float* cos_sin, int64_t row, const int32_t* positions, int T, int half,
                                  double log2_theta) {
  wait_for_previous();
  let_next_start();
  const int index = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const int t = index / half, i = index % half;
  if (t >= T) return;
  const double angle = positions[t] * exp2(-log2_theta * i / half);
  double sine, cosine;
  sincos(angle, &sine, &cosine);
  cos_sin[t * row + i] = static_cast<float>(cosine);
  cos_sin[t * row + half + i] = static_cast<float>(sine);
}

void rope_table(ExecContext& ctx, const RopeTable& a, std::span<std::byte>) {
  const int64_t T = a.cos_sin.dim(0), half = a.cos_sin.dim(1) / 2;
  if (T == 0) return;
  launch(ctx, "rope_table", rope_table_kernel,
         {.grid = static_cast<unsigned>((T * half + kThreads - 1) / kThreads), .block = kThreads},
         a.cos_sin.ptr<float>(), a.cos_sin.stride(0), a.positions.ptr<int32_t>(), static_cast<int>(T),
         static_cast<int>(half), std::log2(a.theta));
}

Refusal rope_table_refusal(const RopeTable& a) {
  return a.positions.is_contiguous() && a.cos_sin.stride(1) == 1 ? Refusal() : "expected contiguous rows";
}

}  // namespace

std::vector<Impl<RopeTable>> rope_table_impls() {
  return {{"cuda.double", DeviceKind::kCuda, rope_table_refusal, rope_table}};
}

}  // namespace moge::ops::cuda
