// Some lanes of a warp hold a token's head in registers: norm, rotation and quantisation are between one read
// and one write. Bound by bandwidth with many tokens, by latency in decode: heads of 64, 128 and 256 are read
// in vectors of 16 bytes, by 4, 8 and 16 lanes, and what a lane reads is on its way at once.
#include "ops/cuda/rope_kv_write.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "ops/cuda/launch.cuh"

namespace moge::ops::cuda {

namespace {

constexpr int kWarps = 8;

struct Params {
  __nv_bfloat16* q;
  void *k_pages, *v_pages;
  float *k_scales, *v_scales;
  const __nv_bfloat16* qkv;
  const float *q_norm, *k_norm, *cos_sin;
  const int32_t* slots;
  int64_t q_row, q_head, qkv_row, qkv_head, cos_sin_row;
  int64_t page, page_head, page_row, scale_page, scale_head;  ///< strides of pages and scales
  int T, H, KV, Dh, PS;
  float eps;
};

/// Combines over the kLanes neighbouring lanes that share a head.
template <int kLanes, class Combine>
__device__ __forceinline__ float over_lanes(float x, const Combine& combine) {
  const unsigned own = static_cast<unsigned>((uint64_t{1} << kLanes) - 1)
                       << (threadIdx.x % 32 / kLanes * kLanes);
#pragma unroll
  for (int d = kLanes / 2; d > 0; d /= 2) x = combine(x, __shfl_xor_sync(own, x, d));
  return x;
}

template <class T, int kN>
struct alignas(sizeof(T) * kN) Vector {
  T e[kN];
};

template <DType>
struct ElementOf {
  using Type = __nv_fp8_storage_t;
};
template <>
struct ElementOf<DType::kBF16> {
  using Type = __nv_bfloat16;
};
template <>
struct ElementOf<DType::kF16> {
  using Type = __half;
};
template <>
struct ElementOf<DType::kI8> {
  using Type = int8_t;
};
template <DType kDType>
using Element = typename ElementOf<kDType>::Type;

template <DType kDType>
__device__ __forceinline__ Element<kDType> rounded(float x) {
  if constexpr (kDType == DType::kBF16)
    return __float2bfloat16_rn(x);
  else if constexpr (kDType == DType::kF16)
    return __float2half_rn(x);
  else if constexpr (kDType == DType::kI8)
    return static_cast<int8_t>(__float2int_rn(fminf(fmaxf(x, -127.0F), 127.0F)));
  else
    return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}

/// What one of a head's kLanes lanes has: kN elements from lane * kN on and as many of the second half, so
/// that both partners of a rotation are here. Lanes past the half hold nothing.
template <int kN, int kLanes>
struct Head {
  float low[kN], high[kN];
  int first = static_cast<int>(threadIdx.x) % kLanes * kN;
  int half = 0;  ///< 0: there is no head

  __device__ void read(const __nv_bfloat16* x, int half_of_head) {
    half = half_of_head;
    Vector<__nv_bfloat16, kN> a{}, b{};
    if (here()) {
      a = *reinterpret_cast<const Vector<__nv_bfloat16, kN>*>(x + first);
      b = *reinterpret_cast<const Vector<__nv_bfloat16, kN>*>(x + half + first);
    }
#pragma unroll
    for (int i = 0; i < kN; ++i) low[i] = __bfloat162float(a.e[i]), high[i] = __bfloat162float(b.e[i]);
  }
  __device__ bool here() const {
    return first < half;
  }
  /// What belongs to the lane's elements, in two parts that are `apart`.
  __device__ void load_halves(float (&x)[2][kN], const float* from, int apart) const {
    constexpr int kVector = kN == 8 ? 4 : 1;  // 16 bytes where they are aligned
    using FloatVector = Vector<float, kVector>;
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int i = 0; i < kN; i += kVector)
        *reinterpret_cast<FloatVector*>(x[h] + i) =
            *reinterpret_cast<const FloatVector*>(from + h * apart + first + i);
  }

  __device__ void norm(const float* weight, float eps) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kN; ++i) sum += low[i] * low[i] + high[i] * high[i];
    const float rstd = 1 / sqrtf(over_lanes<kLanes>(sum, [](float a, float b) { return a + b; }) /
                                     static_cast<float>(2 * half) +
                                 eps);
    if (!here()) return;
    float w[2][kN];
    load_halves(w, weight, half);
#pragma unroll
    for (int i = 0; i < kN; ++i) low[i] = low[i] * rstd * w[0][i], high[i] = high[i] * rstd * w[1][i];
  }
  /// By the cosines and sines of the lane's elements.
  __device__ void turn(const float (&cs)[2][kN]) {
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      const float c = cs[0][i], s = cs[1][i], a = low[i], b = high[i];
      low[i] = a * c - b * s;
      high[i] = b * c + a * s;
    }
  }
  template <DType kDType>
  __device__ void store(Element<kDType>* to, float scale) const {
    if (!here()) return;
    Vector<Element<kDType>, kN> a, b;
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      const auto quantum = [&](float x) { return scale == 0 ? 0.0F : __fdiv_rn(x, scale); };
      const bool plain = size_of(kDType) == 2;
      a.e[i] = rounded<kDType>(plain ? low[i] : quantum(low[i]));
      b.e[i] = rounded<kDType>(plain ? high[i] : quantum(high[i]));
    }
    *reinterpret_cast<Vector<Element<kDType>, kN>*>(to + first) = a;
    *reinterpret_cast<Vector<Element<kDType>, kN>*>(to + half + first) = b;
  }
  __device__ float largest() const {
    float x = 0;
#pragma unroll
    for (int i = 0; i < kN; ++i) x = fmaxf(x, fmaxf(fabsf(low[i]), fabsf(high[i])));
    return over_lanes<kLanes>(x, [](float a, float b) { return fmaxf(a, b); });
  }
};

/// Head h of token t, which x has read.
template <DType kDType, int kN, int kLanes>
__device__ __forceinline__ void write_head(const Params& p, Head<kN, kLanes>& x,
                                           const float (&cos_sin)[2][kN], int t, int h, int slot) {
  const float* norm = h < p.H ? p.q_norm : p.k_norm;
  const bool value = h >= p.H + p.KV;
  if (!value) {
    if (norm) x.norm(norm, p.eps);
    x.turn(cos_sin);
  }
  if (h < p.H) return x.template store<DType::kBF16>(p.q + t * p.q_row + h * p.q_head, 1);
  if (slot < 0) return;
  const int kv = h - p.H - (value ? p.KV : 0), page = slot / p.PS, row = slot % p.PS;
  float scale = 1;
  if constexpr (size_of(kDType) == 1) {
    scale = __fdiv_rn(x.largest(), kDType == DType::kI8 ? 127.0F : 448.0F);
    if (threadIdx.x % kLanes == 0)
      (value ? p.v_scales : p.k_scales)[page * p.scale_page + kv * p.scale_head + row] = scale;
  }
  auto* pages = static_cast<Element<kDType>*>(value ? p.v_pages : p.k_pages);
  x.template store<kDType>(pages + page * p.page + kv * p.page_head + row * p.page_row, scale);
}

/// kLanes lanes have kHeads of a token's heads, which share cosines and sines.
/// Slots, cosines and sines are read while the kernel before this one may still run: launch.cuh says why they
/// are there. mul_attention's blocks are let in at once, to load older keys meanwhile.
template <DType kDType, int kN, int kLanes, int kHeads>
__global__ void __launch_bounds__(kWarps * 32) rope_kv_write_kernel(const __grid_constant__ Params p) {
  let_next_start();
  const unsigned heads = p.H + 2 * p.KV, apart = (heads + kHeads - 1) / kHeads;
  const unsigned index = (blockIdx.x * blockDim.x + threadIdx.x) / kLanes;
  const int t = static_cast<int>(index / apart);
  if (t >= p.T) return;
  Head<kN, kLanes> x[kHeads];
  float cos_sin[2][kN] = {};
  if (x[0].first < p.Dh / 2) x[0].load_halves(cos_sin, p.cos_sin + t * p.cos_sin_row, p.Dh / 2);
  const int slot = p.slots[t];
  wait_for_previous();
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    const unsigned h = index % apart + i * apart;
    x[i].read(p.qkv + t * p.qkv_row + h * p.qkv_head, h < heads ? p.Dh / 2 : 0);
  }
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    const unsigned h = index % apart + i * apart;
    if (h < heads) write_head<kDType>(p, x[i], cos_sin, t, static_cast<int>(h), slot);
  }
}

template <DType kDType, int kN, int kLanes, int kHeads>
void launch_heads(ExecContext& ctx, const Params& p) {
  const int64_t threads = int64_t{p.T} * ((p.H + 2 * p.KV + kHeads - 1) / kHeads) * kLanes;
  launch(ctx, "rope_kv_write", rope_kv_write_kernel<kDType, kN, kLanes, kHeads>,
         {.grid = static_cast<unsigned>((threads + kWarps * 32 - 1) / (kWarps * 32)), .block = kWarps * 32},
         p);
}

template <DType kDType, int kN, int kLanes>
void launch_as(ExecContext& ctx, const Params& p) {
  if constexpr (kN == 8 && size_of(kDType) == 2)
    if (p.T >= 1024) return launch_heads<kDType, kN, kLanes, 2>(ctx, p);
  launch_heads<kDType, kN, kLanes, 1>(ctx, p);
}

template <DType kDType>
void launch_dtype(ExecContext& ctx, const Params& p, bool aligned) {
  if (aligned && p.Dh == 64) return launch_as<kDType, 8, 4>(ctx, p);
  if (aligned && p.Dh == 128) return launch_as<kDType, 8, 8>(ctx, p);
  if (aligned && p.Dh == 256) return launch_as<kDType, 8, 16>(ctx, p);
  if (p.Dh % 8 == 0 && p.Dh > 128) return launch_as<kDType, 4, 32>(ctx, p);
  if (p.Dh % 4 == 0 && p.Dh > 64) return launch_as<kDType, 2, 32>(ctx, p);
  launch_as<kDType, 1, 32>(ctx, p);
}

/// Heads, and what belongs to their elements, begin at multiples of `n` elements and of 2n bytes.
bool heads_aligned(const RopeKvWrite& a, int n) {
  const auto aligned = [n](const Tensor& x) {
    if (!x) return true;
    bool all = reinterpret_cast<uintptr_t>(x.data) % static_cast<uintptr_t>(2 * n) == 0;
    for (int i = 0; i + 1 < x.shape.ndim(); ++i) all = all && x.stride(i) % n == 0;
    return all;
  };
  return aligned(a.q) && aligned(a.qkv) && aligned(a.k_pages) && aligned(a.v_pages) &&
         (n == 4 || (aligned(a.cos_sin) && aligned(a.q_norm) && aligned(a.k_norm)));
}

Refusal refusal(const RopeKvWrite& a) {
  const int64_t Dh = a.q.dim(2);
  if (Dh > 256 || (Dh > 64 && Dh % 4 != 0) || (Dh > 128 && Dh % 8 != 0))
    return str("head dimension ", Dh, ": expected at most 256, above 64 a multiple of 4, above 128 of 8");
  const auto whole_rows = [](const Tensor& x) { return !x || x.stride(-1) == 1; };
  if (!whole_rows(a.q) || !whole_rows(a.qkv) || !whole_rows(a.cos_sin) || !whole_rows(a.k_pages) ||
      !whole_rows(a.v_pages) || !whole_rows(a.k_scales) || !whole_rows(a.v_scales))
    return "expected rows of adjacent elements";
  if (a.k_pages.strides != a.v_pages.strides || a.k_scales.strides != a.v_scales.strides)
    return "expected k's and v's pages to lie alike";
  if (Dh > 64 && !heads_aligned(a, 4)) return "expected heads that begin at multiples of four elements";
  return {};
}

void rope_kv_write(ExecContext& ctx, const RopeKvWrite& a, std::span<std::byte>) {
  const bool scales{a.k_scales};
  const Params p{.q = static_cast<__nv_bfloat16*>(a.q.data),
                 .k_pages = a.k_pages.data,
                 .v_pages = a.v_pages.data,
                 .k_scales = scales ? a.k_scales.ptr<float>() : nullptr,
                 .v_scales = scales ? a.v_scales.ptr<float>() : nullptr,
                 .qkv = static_cast<const __nv_bfloat16*>(a.qkv.data),
                 .q_norm = a.q_norm ? a.q_norm.ptr<float>() : nullptr,
                 .k_norm = a.k_norm ? a.k_norm.ptr<float>() : nullptr,
                 .cos_sin = a.cos_sin.ptr<float>(),
                 .slots = a.slots.ptr<int32_t>(),
                 .q_row = a.q.stride(0),
                 .q_head = a.q.stride(1),
                 .qkv_row = a.qkv.stride(0),
                 .qkv_head = a.qkv.stride(1),
                 .cos_sin_row = a.cos_sin.stride(0),
                 .page = a.k_pages.stride(0),
                 .page_head = a.k_pages.stride(1),
                 .page_row = a.k_pages.stride(2),
                 .scale_page = scales ? a.k_scales.stride(0) : 0,
                 .scale_head = scales ? a.k_scales.stride(1) : 0,
                 .T = static_cast<int>(a.q.dim(0)),
                 .H = static_cast<int>(a.q.dim(1)),
                 .KV = static_cast<int>(a.k_pages.dim(1)),
                 .Dh = static_cast<int>(a.q.dim(2)),
                 .PS = static_cast<int>(a.k_pages.dim(2)),
                 .eps = a.eps};
  if (p.T == 0) return;
  const bool aligned = heads_aligned(a, 8);
  switch (a.k_pages.dtype) {
    case DType::kI8:
      return launch_dtype<DType::kI8>(ctx, p, aligned);
    case DType::kFP8E4M3:
      return launch_dtype<DType::kFP8E4M3>(ctx, p, aligned);
    case DType::kF16:
      return launch_dtype<DType::kF16>(ctx, p, aligned);
    default:
      return launch_dtype<DType::kBF16>(ctx, p, aligned);
  }
}

}  // namespace

std::vector<Impl<RopeKvWrite>> rope_kv_write_impls() {
  return {{"cuda.warp", DeviceKind::kCuda, refusal, rope_kv_write}};
}

}  // namespace moge::ops::cuda
