// cuda.simple: one thread per element of c, for shapes that SwiftGMM refuses.
#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/plain_kernel.h"
#include "ops/cuda/quant_matmul.h"
#include "ops/cuda/sm90/swift_gmm.h"

namespace moge::ops::cuda {

namespace {

struct Params {
  void* c;
  const void* a;
  const void* w;
  const float* a_scale;
  const float* w_scale;
  const float* bias;
  const float* row_weight;
  const int* offsets;
  const int* row_ids;
  int64_t c_stride, c_column_stride, a_stride, a_column_stride, num_rows, n, k;
  int num_groups;
  bool silu_mul;
};

__device__ float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ float to_float(__nv_fp8_e4m3 x) {
  return static_cast<float>(x);
}
__device__ int to_float(int8_t x) {
  return x;
}

/// v[r, feature] of ops/quant_matmul.h; row r is that of `token` and of group g.
template <class T>
__device__ float value(const Params& p, int64_t g, int64_t token, int64_t feature) {
  const T* a = static_cast<const T*>(p.a) + token * p.a_stride;
  const T* w = static_cast<const T*>(p.w) + (g * p.n + feature) * p.k;
  decltype(to_float(T{})) sum = 0;
  for (int64_t k = 0; k < p.k; ++k) sum += to_float(a[k * p.a_column_stride]) * to_float(w[k]);
  float v = static_cast<float>(sum);
  if (p.w_scale) v = __fmul_rn(__fmul_rn(v, p.w_scale[g * p.n + feature]), p.a_scale[token]);
  return p.bias ? __fadd_rn(v, p.bias[feature]) : v;
}

template <class T, class C>
__global__ void quant_matmul_kernel(const Params p) {
  wait_for_previous();
  const int64_t columns = p.silu_mul ? p.n / 2 : p.n;
  const int64_t element = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t r = element / columns, i = element % columns;
  if (r >= p.num_rows) return;
  int64_t g = 0;
  if (p.offsets)
    while (r >= p.offsets[g + 1]) ++g;
  const int64_t token = p.row_ids ? p.row_ids[r] : r;
  float v;
  if (p.silu_mul) {
    const float gate = value<T>(p, g, token, gate_up_row(i, false));
    v = gate / (1.0F + __expf(-gate)) * value<T>(p, g, token, gate_up_row(i, true));
  } else {
    v = value<T>(p, g, token, i);
  }
  if (p.row_weight) v *= p.row_weight[r];
  static_cast<C*>(p.c)[r * p.c_stride + i * p.c_column_stride] = C(v);
}

template <class T>
void run_as(ExecContext& ctx, const QuantMatmul& a) {
  const auto f32 = [](const Tensor& t) { return t ? t.ptr<float>() : nullptr; };
  const auto i32 = [](const Tensor& t) { return t ? t.ptr<int32_t>() : nullptr; };
  const Params p{.c = a.c.data,
                 .a = a.a.data,
                 .w = a.w.data,
                 .a_scale = f32(a.a_scale),
                 .w_scale = f32(a.w_scale),
                 .bias = f32(a.bias),
                 .row_weight = f32(a.row_weight),
                 .offsets = i32(a.offsets),
                 .row_ids = i32(a.row_ids),
                 .c_stride = a.c.stride(0),
                 .c_column_stride = a.c.stride(1),
                 .a_stride = a.a.stride(0),
                 .a_column_stride = a.a.stride(1),
                 .num_rows = a.c.dim(0),
                 .n = a.w.dim(-2),
                 .k = a.w.dim(-1),
                 .num_groups = a.offsets ? static_cast<int>(a.w.dim(0)) : 1,
                 .silu_mul = a.silu_mul};
  constexpr int kThreads = 256;
  const LaunchConfig config{.grid = dim3(static_cast<unsigned>((a.c.numel() + kThreads - 1) / kThreads)),
                            .block = dim3(kThreads)};
  if (a.c.dtype == DType::kF32)
    launch(ctx, "quant_matmul", quant_matmul_kernel<T, float>, config, p);
  else
    launch(ctx, "quant_matmul", quant_matmul_kernel<T, __nv_bfloat16>, config, p);
}

Refusal supports(const QuantMatmul& a) {
  for (const Tensor* t : {&a.a_scale, &a.w_scale, &a.bias, &a.offsets, &a.row_ids, &a.row_weight})
    if (*t && !t->is_contiguous()) return str(t->str(), ": expected a contiguous tensor");
  return a.c.numel() < int64_t{1} << 39 ? "" : "expected fewer elements of c";
}

void run(ExecContext& ctx, const QuantMatmul& a, std::span<std::byte>) {
  if (a.c.numel() == 0) return;
  warn_of_plain_kernel("quant_matmul", swift_gmm_refusal(a));
  switch (a.a.dtype) {
    case DType::kI8:
      return run_as<int8_t>(ctx, a);
    case DType::kFP8E4M3:
      return run_as<__nv_fp8_e4m3>(ctx, a);
    default:
      return run_as<__nv_bfloat16>(ctx, a);
  }
}

}  // namespace

std::vector<Impl<QuantMatmul>> quant_matmul_impls() {
  std::vector<Impl<QuantMatmul>> impls = swift_gmm_impls();
  impls.push_back({"cuda.simple", DeviceKind::kCuda, supports, run});
  return impls;
}

}  // namespace moge::ops::cuda
