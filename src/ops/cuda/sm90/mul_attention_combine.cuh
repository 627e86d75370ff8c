// The parts that several blocks left of a sequence and KV head become its result. Which block does that
// changes no bit: parts are merged in increasing order, chunks into spans and spans into the result.
#pragma once
#include "ops/cuda/sm90/mul_attention.cuh"
#include "ops/cuda/sm90/tma.cuh"

namespace moge::ops::cuda {

__device__ __forceinline__ __nv_bfloat16* result_row(const MulAttentionParams& a, int b, int kv_head, int r) {
  const int row = a.query_rows == 1 ? 0 : r / a.G;  // divisions take long
  const int64_t token = static_cast<int64_t>(b) * a.query_rows + row;
  return a.out + token * a.out_row + (kv_head * a.G + r - row * a.G) * a.out_head;
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
/// Each copies its elements of many parts to memory of its own, in `scratch`, before it merges the first.
template <class Config>
__device__ __forceinline__ void combine_parts(const MulAttentionParams& a, const Plan& plan, int b,
                                              int kv_head, uint8_t* scratch, int scratch_bytes) {
  constexpr int kColumns = Config::kDh / 4, kThreads = Config::kWarps * 32, kPartBytes = kThreads * 32;
  static_assert(kMinStages * Config::Tile::kBytes >= kChunksPerSpan * kPartBytes);  // at_once > 0
  const int chunks = ceil_div(plan.lengths[b], kChunkPositions);
  const int merged = plan.first_part_places(b), of_span = plan.by_chunk ? kChunksPerSpan : 1;
  const int count = (plan.by_chunk ? chunks : ceil_div(chunks, kChunksPerSpan)) - merged + 1;
  const int at_once = scratch_bytes / kPartBytes / kChunksPerSpan * kChunksPerSpan;
  const int64_t next_part = static_cast<int64_t>(a.KV) * a.R();  // rows
  scratch += threadIdx.x * 16;
  for (int i = threadIdx.x; i < a.R() * kColumns; i += kThreads) {
    const int r = i / kColumns, d = i % kColumns * 4;
    const int64_t row = part_row(a, plan.first_part(b, a.max_spans), kv_head, r);
    const float *state = a.state + row * 4, *values = a.partial + row * Config::kDh + d;
    int64_t skip = merged - 1;  // places that the first part stands for, too
    PartSum all;
    for (int begin = 0; begin < count; begin += at_once) {
      const int parts = min(at_once, count - begin);
      uint32_t to = shared_address(scratch);
#pragma unroll 4
      for (int j = 0; j < parts; ++j, to += kPartBytes) {
        load_16(to, state, false);
        load_16(to + kPartBytes / 2, values, false);
        const int64_t step = next_part + skip * next_part;
        state += step * 4;
        values += step * Config::kDh;
        skip = 0;
      }
      asm volatile("cp.async.wait_all;" ::: "memory");
      for (int j = 0; j < parts; j += of_span) {
        PartSum span;
#pragma unroll
        for (int k = 0; k < kChunksPerSpan; ++k) {  // what is not there changes nothing
          const bool here = k < of_span && j + k < parts;
          const auto* part = reinterpret_cast<const float4*>(scratch + (here ? j + k : j) * kPartBytes);
          const float4 s = part[0], o = part[kThreads];
          span.merge({here ? s.x : -INFINITY, here ? s.y : 0}, here ? o : float4{});
        }
        all.merge(span.state, span.o);
      }
    }
    const float inverse = all.state.inverse_sum();
    auto* out = reinterpret_cast<__nv_bfloat162*>(result_row(a, b, kv_head, r) + d);
    out[0] = __floats2bfloat162_rn(__fmul_rn(all.o.x, inverse), __fmul_rn(all.o.y, inverse));
    out[1] = __floats2bfloat162_rn(__fmul_rn(all.o.z, inverse), __fmul_rn(all.o.w, inverse));
  }
}

}  // namespace moge::ops::cuda
