// The parts that several blocks left of a sequence and KV head become its result. Which block does that
// changes no bit: parts are merged in increasing order, chunks into spans and spans into the result.
#pragma once
#include "ops/cuda/sm90/mul_attention.cuh"

namespace moge::ops::cuda {

__device__ __forceinline__ __nv_bfloat16* result_row(const MulAttentionParams& a, int b, int kv_head, int r) {
  const int64_t token = static_cast<int64_t>(b) * a.query_rows + r / a.G;
  return a.out + token * a.out_row + (kv_head * a.G + r % a.G) * a.out_head;
}

/// Row of MulAttentionParams::state and partial.
__device__ __forceinline__ int64_t part_row(const MulAttentionParams& a, int part, int kv_head, int r) {
  return (static_cast<int64_t>(part) * a.KV + kv_head) * a.R() + r;
}

/// Running softmax and four elements of its values.
struct PartSum {
  SoftmaxState state;
  float4 o = {};
  __device__ __forceinline__ void merge(const SoftmaxState& part, const float4& values) {
    float keep, add;
    state.merge(part.m, part.l, keep, add);
    o = {merge_value(o.x, values.x, keep, add), merge_value(o.y, values.y, keep, add),
         merge_value(o.z, values.z, keep, add), merge_value(o.w, values.w, keep, add)};
  }
};

/// All threads of the warps that calculate, of the block whose unit was the last of the sequence to be done.
template <class Config>
__device__ __forceinline__ void combine_parts(const MulAttentionParams& a, const Plan& plan, int b,
                                              int kv_head) {
  constexpr int kAtOnce = 8;  // parts that are under way
  constexpr int kColumns = Config::kDh / 4;
  const int part_chunks = plan.part_chunks(), chunks = ceil_div(plan.lengths[b], kChunkPositions);
  const int merged = plan.unit_chunks(b) / part_chunks;  // parts' places that the first one stands for
  const int count = ceil_div(chunks, part_chunks) - merged + 1, first = plan.first_part(b, a.max_spans);
  const auto place = [=](int i) { return i == 0 ? 0 : i + merged - 1; };
  for (int i = threadIdx.x; i < a.R() * kColumns; i += Config::kWarps * 32) {
    const int r = i / kColumns, d = i % kColumns * 4;
    PartSum all, span;
    for (int begin = 0; begin < count; begin += kAtOnce) {
      float2 states[kAtOnce];
      float4 values[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (begin + j >= count) break;
        const int64_t row = part_row(a, first + place(begin + j), kv_head, r);
        states[j] = __ldcg(reinterpret_cast<const float2*>(a.state) + row);
        values[j] = __ldcg(reinterpret_cast<const float4*>(a.partial + row * Config::kDh + d));
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (begin + j >= count) break;
        span.merge({states[j].x, states[j].y}, values[j]);
        const int end = (place(begin + j) + 1) * part_chunks;  // at least, of the chunks in the span
        if (end % kChunksPerSpan != 0 && end < chunks) continue;
        all.merge(span.state, span.o);
        span = {};
      }
    }
    const float inverse = all.state.inverse_sum();
    auto* out = reinterpret_cast<__nv_bfloat162*>(result_row(a, b, kv_head, r) + d);
    out[0] = __floats2bfloat162_rn(__fmul_rn(all.o.x, inverse), __fmul_rn(all.o.y, inverse));
    out[1] = __floats2bfloat162_rn(__fmul_rn(all.o.z, inverse), __fmul_rn(all.o.w, inverse));
  }
}

}  // namespace moge::ops::cuda
