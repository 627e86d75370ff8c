#include "ops/cuda/embedding.h"

#include <algorithm>
#include <limits>

#include "core/match.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/vec.cuh"

namespace moge::ops::cuda {

namespace {

template <class W>
struct Params {
  float* y;
  const W* weight;
  const int32_t* ids;
  int64_t y_stride, weight_stride;
  int vecs, vocab;
};

/// A block a token. A token outside the vocabulary, which the device cannot report, becomes NaN.
template <class W>
__global__ void __launch_bounds__(1024) embedding_kernel(const Params<W> p) {
  const int64_t token = blockIdx.x;
  let_next_start();
  wait_for_previous();
  const int64_t id = p.ids[token];
  const bool known = id >= 0 && id < p.vocab;
  for (int vec = threadIdx.x; vec < p.vecs; vec += blockDim.x) {
    float x[kVec];
    if (known) {
      load_vec(x, p.weight + id * p.weight_stride + vec * kVec);
    } else {
#pragma unroll
      for (float& v : x) v = std::numeric_limits<float>::quiet_NaN();
    }
    store_vec(p.y + token * p.y_stride + vec * kVec, x);
  }
}

Refusal supports(const EmbeddingFwd& a) {
  for (const Tensor* t : {&a.y, &a.weight})
    if (!rows_in_vecs(*t) || t->layout != Layout::kStrided)
      return str(t->str(), ": expected rows of aligned vectors of ", kVec);
  return "";
}

template <class W>
void run_as(ExecContext& ctx, const EmbeddingFwd& a) {
  const Params<W> p{.y = a.y.ptr<float>(),
                    .weight = a.weight.ptr<W>(),
                    .ids = a.ids.ptr<int32_t>(),
                    .y_stride = a.y.stride(0),
                    .weight_stride = a.weight.stride(0),
                    .vecs = narrow(a.y.dim(1) / kVec, "embedding_fwd: width"),
                    .vocab = narrow(a.weight.dim(0), "embedding_fwd: vocabulary")};
  const auto threads = static_cast<unsigned>(std::min(1024, (p.vecs + kWarp - 1) / kWarp * kWarp));
  launch(ctx, "embedding_fwd", embedding_kernel<W>,
         {.grid = static_cast<unsigned>(a.y.dim(0)), .block = threads}, p);
}

void run(ExecContext& ctx, const EmbeddingFwd& a, std::span<std::byte>) {
  if (a.y.numel() == 0) return;
  a.weight.dtype == DType::kBF16 ? run_as<BF16>(ctx, a) : run_as<float>(ctx, a);
}

}  // namespace

std::vector<Impl<EmbeddingFwd>> embedding_fwd_impls() {
  return {{"cuda.rows", DeviceKind::kCuda, supports, run}};
}

}  // namespace moge::ops::cuda
