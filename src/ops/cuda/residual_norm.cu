// Residual, RMSNorm and quantisation of a row by one block, or by four while there are few: the row stays in
// registers between them, so each byte is read and written once. The row's sum of squares and its largest
// element are reduced together, which is why the quantised row is x * weight * (127 / max|x * weight|): the
// root mean square cancels out.
#include "ops/cuda/residual_norm.h"

#include "core/match.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/sm90/cluster.cuh"
#include "ops/cuda/vec.cuh"
#include "ops/quantize.h"

namespace moge::ops::cuda {

namespace {

/// One vector of eight a thread.
constexpr int kMaxThreads = 1024;

/// Few rows wait for their loads: all of an MoE's slots in flight at once. Many rows fill the memory bus when
/// two blocks share a multiprocessor, with fewer registers each. The bits are the same.
struct FewRows {
  static constexpr int kThreads = 640, kBlocks = 1, kInFlight = 12;
};
struct ManyRows {
  static constexpr int kThreads = 640, kBlocks = 2, kInFlight = 4;
};
struct WideRows {
  static constexpr int kThreads = kMaxThreads, kBlocks = 1, kInFlight = 4;
};

struct Params {
  float* x;
  const BF16* delta;
  const BF16* rows;
  const int32_t* slot_row;
  const float* weight;
  BF16* normed;
  void* q;
  float* q_scale;
  int x_stride, delta_stride, rows_stride, normed_stride, q_stride;
  int slots, slot_stride, vecs;
  DType q_dtype;
  float eps, inverse_width;
  bool writes_x;
};

/// In lane l the row of slot first + l.
__device__ __forceinline__ int row_of_lane(const Params& p, int token, int first) {
  const int slot = first + static_cast<int>(threadIdx.x) % kWarp;
  return slot < p.slots ? p.slot_row[int64_t{token} * p.slot_stride + slot] : 0;
}

/// x += the rows of up to 32 slots of a token, in order, a lane's each.
template <int kInFlight>
__device__ __forceinline__ void add_slots(float (&x)[kVec], const Params& p, int row, int slots, int column,
                                          bool active) {
  for (int first = 0; first < slots; first += kInFlight) {
    const int count = min(kInFlight, slots - first);
    uint4 v[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int64_t r = __shfl_sync(kAllLanes, row, first + i);
      v[i] = {};
      if (i < count && active) v[i] = *reinterpret_cast<const uint4*>(p.rows + r * p.rows_stride + column);
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (i >= count) break;
      float y[kVec];
      unpack_bf16(y, v[i]);
#pragma unroll
      for (int j = 0; j < kVec; ++j) x[j] += y[j];
    }
  }
}

/// A thread's vector of a row, from the first read to the last write.
struct Columns {
  __device__ Columns(const Params& p, int token, int vec)
      : p(p), token(token), column(vec * kVec), active(vec < p.vecs) {
    if (active) load_vec(weight, p.weight + column);
  }
  /// Where the vector is in rows of this stride.
  template <class T>
  __device__ T* at(T* rows, int stride) const {
    return rows + int64_t{token} * stride + column;
  }
  template <int kInFlight>
  __device__ void update() {
    int row = row_of_lane(p, token, 0);  // first: rows wait for it
    if (active) load_vec(x, at(p.x, p.x_stride));
    if (p.delta && active) {
      float delta[kVec];
      load_vec(delta, at(p.delta, p.delta_stride));
#pragma unroll
      for (int j = 0; j < kVec; ++j) x[j] += delta[j];
    }
    for (int first = 0; first < p.slots; first += kWarp) {
      if (first > 0) row = row_of_lane(p, token, first);
      add_slots<kInFlight>(x, p, row, min(kWarp, p.slots - first), column, active);
    }
    if (p.writes_x && active) store_vec(at(p.x, p.x_stride), x);
  }
  /// Of x^2 and of |x weight|.
  __device__ SumAndMax sum_and_max() const {
    SumAndMax row{0, 0};
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      row.sum += x[j] * x[j];
      row.max = fmaxf(row.max, fabsf(x[j] * weight[j]));
    }
    return row;
  }
  /// `row` is that of all columns.
  __device__ void write(const SumAndMax& row) const {
    if (!active) return;
    const float rstd = 1 / sqrtf(row.sum * p.inverse_width + p.eps);
    float y[kVec];
    if (p.normed) {
#pragma unroll
      for (int j = 0; j < kVec; ++j) y[j] = x[j] * rstd * weight[j];
      store_vec(at(p.normed, p.normed_stride), y);
    }
    if (!p.q) return;
    const float largest = largest_quantum(p.q_dtype);
    const float inverse = row.max > 0 ? largest / row.max : 0;
#pragma unroll
    for (int j = 0; j < kVec; ++j) y[j] = x[j] * weight[j] * inverse;
    if (p.q_dtype == DType::kI8)
      store_vec(at(static_cast<int8_t*>(p.q), p.q_stride), y);
    else
      store_vec(at(static_cast<FP8E4M3*>(p.q), p.q_stride), y);
    if (column == 0) p.q_scale[token] = row.max * rstd / largest;
  }
  const Params& p;
  int token, column;
  bool active;
  float x[kVec] = {}, weight[kVec] = {};
};

template <class Variant>
__global__ void __launch_bounds__(Variant::kThreads, Variant::kBlocks) residual_norm_kernel(const Params p) {
  let_next_start();
  Columns columns(p, blockIdx.x, static_cast<int>(threadIdx.x));
  wait_for_previous();
  columns.update<Variant::kInFlight>();
  columns.write(block_sum_and_max(columns.sum_and_max()));
}

/// A row by a cluster: one multiprocessor alone takes a microsecond for the slots of a token. Blocks send
/// each other what their warps have; adding that is the same as in one block.
constexpr int kRowBlocks = 4;
constexpr int kSplitInFlight = 12;
__global__ void __launch_bounds__(kMaxThreads / kRowBlocks) residual_norm_split_kernel(const Params p) {
  __shared__ __align__(8) SumAndMax partial[kWarp];
  __shared__ __align__(8) uint64_t barrier_memory;
  const int rank = static_cast<int>(blockIdx.x) % kRowBlocks;
  const int warps = static_cast<int>(blockDim.x) / kWarp, lane = threadIdx.x % kWarp;
  const uint32_t barrier = shared_address(&barrier_memory);
  let_next_start();
  if (threadIdx.x == 0) {
    barrier_init(barrier, 1);
    fence_barrier_init();
    barrier_arrive_expect(barrier, kRowBlocks * warps * static_cast<int>(sizeof(SumAndMax)));
  }
  cluster_arrive();
  Columns columns(p, blockIdx.x / kRowBlocks, static_cast<int>(rank * blockDim.x + threadIdx.x));
  wait_for_previous();
  columns.update<kSplitInFlight>();
  SumAndMax row = columns.sum_and_max();
  row = {warp_sum(row.sum), warp_max(row.max)};
  cluster_wait();
  if (lane < kRowBlocks) {
    const uint32_t to = shared_address(partial + rank * warps + threadIdx.x / kWarp);
    send(cluster_address(to, lane), float2{row.sum, row.max}, cluster_address(barrier, lane));
  }
  barrier_wait(barrier, 0);
  row = lane < kRowBlocks * warps ? partial[lane] : SumAndMax{0, 0};
  columns.write({warp_sum(row.sum), warp_max(row.max)});
}

Refusal supports(const ResidualNorm& a) {
  const int64_t D = a.x.dim(1);
  if (D > kMaxThreads * kVec) return str("width ", D, ": expected at most ", kMaxThreads * kVec);
  for (const Tensor* t : {&a.x, &a.delta, &a.rows, &a.normed, &a.q})
    if (!rows_in_vecs(*t)) return str(t->str(), ": expected rows of aligned vectors of ", kVec);
  if (a.q_scale && !a.q_scale.is_contiguous()) return "q_scale: expected contiguous";
  return "";
}

template <class T>
T* data(const Tensor& t) {
  return t ? t.ptr<T>() : nullptr;
}

void run(ExecContext& ctx, const ResidualNorm& a, std::span<std::byte>) {
  const int64_t T = a.x.dim(0), D = a.x.dim(1);
  if (T == 0 || D == 0) return;
  const auto stride = [](const Tensor& t) {
    return t ? narrow(t.stride(0), "residual_norm: stride of rows") : 0;
  };
  const Params p{.x = data<float>(a.x),
                 .delta = data<BF16>(a.delta),
                 .rows = data<BF16>(a.rows),
                 .slot_row = data<int32_t>(a.slot_row),
                 .weight = data<float>(a.weight),
                 .normed = data<BF16>(a.normed),
                 .q = a.q.data,
                 .q_scale = data<float>(a.q_scale),
                 .x_stride = stride(a.x),
                 .delta_stride = stride(a.delta),
                 .rows_stride = stride(a.rows),
                 .normed_stride = stride(a.normed),
                 .q_stride = stride(a.q),
                 .slots = a.slot_row ? narrow(a.slot_row.dim(1), "residual_norm: slots") : 0,
                 .slot_stride = stride(a.slot_row),
                 .vecs = narrow(D / kVec, "residual_norm: width"),
                 .q_dtype = a.q.dtype,
                 .eps = a.eps,
                 .inverse_width = 1 / static_cast<float>(D),
                 .writes_x = (a.delta || a.rows) && !a.keep_x};
  const unsigned threads = (p.vecs + kWarp - 1) / kWarp * kWarp;
  const int sms = ctx.backend->info().num_sms;
  if (T * kRowBlocks <= sms && threads % (kRowBlocks * kWarp) == 0) {
    const LaunchConfig split{
        .grid = static_cast<unsigned>(T * kRowBlocks), .block = threads / kRowBlocks, .cluster = kRowBlocks};
    return launch(ctx, "residual_norm", residual_norm_split_kernel, split, p);
  }
  auto* kernel = residual_norm_kernel<WideRows>;
  if (threads <= FewRows::kThreads)
    kernel = T <= sms ? residual_norm_kernel<FewRows> : residual_norm_kernel<ManyRows>;
  launch(ctx, "residual_norm", kernel, {.grid = static_cast<unsigned>(T), .block = threads}, p);
}

}  // namespace

std::vector<Impl<ResidualNorm>> residual_norm_impls() {
  return {{"cuda.block", DeviceKind::kCuda, supports, run}};
}

}  // namespace moge::ops::cuda
