// A row stays in registers, as it came, between finding its largest element and its quantisation: a warp
// holds short rows, a block long ones. True divisions, so that the bits are those of the reference.
#include "ops/cuda/quantize.h"

#include "core/match.h"
#include "ops/cuda/divider.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/vec.cuh"

namespace moge::ops::cuda {

namespace {

template <class X, class Q>
struct Params {
  Q* q;
  float* scale;
  const X* x;
  int64_t q_stride, x_stride;
  int rows, vecs;
};

/// Eight elements in the type that they have in memory.
template <class X>
struct Loaded {
  __device__ explicit Loaded(const X* p) {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = reinterpret_cast<const uint4*>(p)[i];
  }
  Loaded() = default;
  __device__ void unpack(float (&x)[kVec]) const {
    load_vec(x, reinterpret_cast<const X*>(words));
  }
  /// Of |x|. bf16s two at a time: were they unpacked for this, they would stay so in twice the registers.
  __device__ float largest() const {
    float x = 0;
    __nv_bfloat162 pair = {0, 0};
#pragma unroll
    for (const uint4& v : words)
#pragma unroll
      for (const uint32_t word : {v.x, v.y, v.z, v.w})
        if constexpr (sizeof(X) == 4)
          x = fmaxf(x, fabsf(__uint_as_float(word)));
        else
          pair = __hmax2(pair, __habs2(reinterpret_cast<const __nv_bfloat162&>(word)));
    return sizeof(X) == 4 ? x : fmaxf(__low2float(pair), __high2float(pair));
  }
  static constexpr int kWords = sizeof(X) / 2;
  uint4 words[kWords];
};

/// Of Divider. Of bf16s one is enough: quotients of all bf16s by every scale that a largest bf16 can give
/// round to the same eight bits (a case of quantize_cases.cpp has them all).
template <class X>
inline constexpr int kSteps = sizeof(X) == 2 ? 1 : 2;

/// `kVecs` vectors a thread. Long rows: a block each; else a warp each.
template <class X, class Q, int kVecs, bool kLong>
__global__ void __launch_bounds__(kLong ? 1024 : 256) quantize_rows_kernel(const Params<X, Q> p) {
  const int row_threads = kLong ? blockDim.x : kWarp;
  const int thread = threadIdx.x % row_threads;
  const int64_t row = kLong ? blockIdx.x : (blockIdx.x * blockDim.x + threadIdx.x) / kWarp;
  let_next_start();
  if (row >= p.rows) return;
  wait_for_previous();

  Loaded<X> loaded[kVecs] = {};
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
    const int vec = i * row_threads + thread;
    if (vec < p.vecs) loaded[i] = Loaded<X>(p.x + row * p.x_stride + vec * kVec);
  }
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kVecs; ++i) largest = fmaxf(largest, loaded[i].largest());
  largest = kLong ? block_sum_and_max({0, largest}).max : warp_max(largest);
  const float scale = largest / largest_quantum(dtype_of<Q>());
  const Divider by_scale(scale);
  Q* const q = p.q + row * p.q_stride;
  if (by_scale.by_inverse()) {
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int vec = i * row_threads + thread;
      if (vec >= p.vecs) break;
      float x[kVec];
      loaded[i].unpack(x);
      by_scale.multiply<kSteps<X>>(x);
      store_vec(q + vec * kVec, x);
    }
  } else {  // rows of zeros, or nearly: short code, which reads them again
#pragma unroll 1
    for (int vec = thread; vec < p.vecs; vec += row_threads) {
      float x[kVec];
      Loaded<X>(p.x + row * p.x_stride + vec * kVec).unpack(x);
      by_scale.divide_plainly(x);
      store_vec(q + vec * kVec, x);
    }
  }
  if (thread == 0) p.scale[row] = scale;
}

constexpr int kWarpVecs = 8;   ///< at most, of a lane
constexpr int kBlockVecs = 4;  ///< at most, of a thread
constexpr int64_t kMaxWidth = int64_t{1024} * kBlockVecs * kVec;

Refusal supports(const QuantizeRows& a) {
  if (a.x.dim(1) > kMaxWidth) return str("width ", a.x.dim(1), ": expected at most ", kMaxWidth);
  for (const Tensor* t : {&a.x, &a.q})
    if (!rows_in_vecs(*t)) return str(t->str(), ": expected rows of aligned vectors of ", kVec);
  return a.scale.is_contiguous() ? "" : "scale: expected contiguous";
}

template <class X, class Q>
void run_as(ExecContext& ctx, const QuantizeRows& a) {
  const Params<X, Q> p{.q = a.q.ptr<Q>(),
                       .scale = a.scale.ptr<float>(),
                       .x = a.x.ptr<X>(),
                       .q_stride = a.q.stride(0),
                       .x_stride = a.x.stride(0),
                       .rows = narrow(a.x.dim(0), "quantize_rows: rows"),
                       .vecs = narrow(a.x.dim(1) / kVec, "quantize_rows: width")};
  const auto rows = static_cast<unsigned>(p.rows);
  const auto block_of = [](int vecs) { return static_cast<unsigned>((vecs + kWarp - 1) / kWarp * kWarp); };
  if (p.vecs <= kWarpVecs * kWarp) {
    // Few rows: a block each, over all multiprocessors.
    const unsigned warps = rows < 1024 ? 1 : 8;
    launch(ctx, "quantize_rows", quantize_rows_kernel<X, Q, kWarpVecs, false>,
           {.grid = (rows + warps - 1) / warps, .block = warps * kWarp}, p);
  } else if (p.vecs <= 1024 && rows < 1024) {
    launch(ctx, "quantize_rows", quantize_rows_kernel<X, Q, 1, true>,
           {.grid = rows, .block = block_of(p.vecs)}, p);
  } else {
    launch(ctx, "quantize_rows", quantize_rows_kernel<X, Q, kBlockVecs, true>,
           {.grid = rows, .block = block_of((p.vecs + kBlockVecs - 1) / kBlockVecs)}, p);
  }
}

void run(ExecContext& ctx, const QuantizeRows& a, std::span<std::byte>) {
  if (a.x.numel() == 0) return;
  if (a.x.dtype == DType::kF32)
    a.q.dtype == DType::kI8 ? run_as<float, int8_t>(ctx, a) : run_as<float, FP8E4M3>(ctx, a);
  else
    a.q.dtype == DType::kI8 ? run_as<BF16, int8_t>(ctx, a) : run_as<BF16, FP8E4M3>(ctx, a);
}

}  // namespace

std::vector<Impl<QuantizeRows>> quantize_rows_impls() {
  return {{"cuda.rows", DeviceKind::kCuda, supports, run}};
}

}  // namespace moge::ops::cuda
