// The router's arithmetic: products of the gate and tokens on the tensor cores, cut so that a token's logits
// are the same bits in every kernel, and the choice of experts by a warp.
#pragma once
#include <climits>

#include "ops/cuda/mma.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/vec.cuh"

namespace moge::ops::cuda {

inline constexpr int kExpertTile = 16;  ///< experts of an mma
inline constexpr int kTokenTile = 8;    ///< tokens of an mma
inline constexpr int kUnit = 32;        ///< inner elements of two mmas
inline constexpr int kMaxExperts = 256;
inline constexpr int kExpertBlock = 64;  ///< experts side by side: four warps

/// The inner dimension is cut into 32 slices, each a chain of mmas. A logit is their sum in one order: four
/// slices, one after the other, are an eighth; two eighths a quarter; the quarters follow each other.
inline constexpr int kSlices = 32;

/// The logit of parts that are slices (32) or eighths (8).
inline constexpr int kEighths = 8;
template <int kParts, class Part>
__device__ __forceinline__ float sum_of_parts(const Part& part) {
  constexpr int kOfEighth = kParts / kEighths;
  float logit = 0, before = 0;
#pragma unroll
  for (int o = 0; o < kEighths; ++o) {
    float eighth = part(o * kOfEighth);
#pragma unroll
    for (int i = 1; i < kOfEighth; ++i) eighth += part(o * kOfEighth + i);
    if (o % 2 == 0)
      before = eighth;
    else
      logit = o == 1 ? before + eighth : logit + (before + eighth);
  }
  return logit;
}

template <class Gate>
struct RouteParams {
  const BF16* x;
  const Gate* gate;
  const float* router_scale;
  int32_t* topk_ids;
  float* topk_weights;
  int32_t* offsets;
  int32_t* row_token;
  float* row_weight;
  int32_t* slot_row;
  // With many tokens, between the kernels:
  float* parts;      ///< [32 slices or 8 eighths][T][E] of the logits
  uint32_t* chosen;  ///< [E][chunks of 32 tokens]: a bit for each token that picked the expert
  int64_t x_stride, gate_stride;
  int ids_stride, weights_stride, slots_stride;
  int T, D, E, K, S;
  int chunks;
  int group, group_picks;  ///< experts of a group, picks in each
  int group_inverse;       ///< ceil(2^16 / group): e / group = e * group_inverse >> 16 below 256
  bool renormalize;
};

/// The units first .. end-1 of a slice.
struct Slice {
  __device__ Slice(int index, int D) {
    const int units = (D + kUnit - 1) / kUnit;
    begin = index * units / kSlices;
    end = (index + 1) * units / kSlices;
  }
  int begin, end;
};

/// Eight neighbouring gate elements of one row, as one (bf16) or three (f32, exactly: 24 bits are three times
/// eight) bf16 vectors.
__device__ __forceinline__ void load_gate(uint4 (&v)[1], const BF16* p) {
  v[0] = __ldg(reinterpret_cast<const uint4*>(p));
}
__device__ __forceinline__ void load_gate(uint4 (&v)[2], const float* p) {
  v[0] = __ldg(reinterpret_cast<const uint4*>(p));
  v[1] = __ldg(reinterpret_cast<const uint4*>(p) + 1);
}
__device__ __forceinline__ void gate_parts(uint32_t (&parts)[1][4], const uint4 (&v)[1]) {
  parts[0][0] = v[0].x, parts[0][1] = v[0].y, parts[0][2] = v[0].z, parts[0][3] = v[0].w;
}
__device__ __forceinline__ void gate_parts(uint32_t (&parts)[3][4], const uint4 (&v)[2]) {
  const uint32_t bits[kVec] = {v[0].x, v[0].y, v[0].z, v[0].w, v[1].x, v[1].y, v[1].z, v[1].w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float a = __uint_as_float(bits[2 * i]), b = __uint_as_float(bits[2 * i + 1]);
#pragma unroll
    for (int part = 2; part >= 0; --part) {  // the largest last
      parts[part][i] = pack<DType::kBF16>(a, b);
      a -= low_bf16(parts[part][i]);
      b -= high_bf16(parts[part][i]);
    }
  }
}

/// Whether eight f32s are bf16s, as those of most checkpoints are: then these are their largest parts, and
/// the others are 0.
__device__ __forceinline__ bool holds_bf16(const uint4 (&v)[2]) {
  return ((v[0].x | v[0].y | v[0].z | v[0].w | v[1].x | v[1].y | v[1].z | v[1].w) & 0xffffU) == 0;
}
__device__ __forceinline__ void upper_halves(uint32_t (&pairs)[4], const uint4 (&v)[2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    pairs[2 * i] = __byte_perm(v[i].x, v[i].y, 0x7632);
    pairs[2 * i + 1] = __byte_perm(v[i].z, v[i].w, 0x7632);
  }
}

/// Loads of eight elements, their bf16 parts, and how many units a warp loads at once.
template <class Gate>
struct GateTraits;
template <>
struct GateTraits<BF16> {
  static constexpr int kLoads = 1, kParts = 1, kUnits = 5;
};
template <>
struct GateTraits<float> {
  static constexpr int kLoads = 2, kParts = 3, kUnits = 5;
};

/// acc += 16 experts times 8 tokens over a unit, of which lane 4g + t holds elements 8t .. 8t+7: of the
/// gate's rows g and g + 8, of token g. Which of them an mma calls its first is free as long as both operands
/// agree.
template <int kParts>
__device__ __forceinline__ void multiply_unit(float (&acc)[4], const uint32_t (&gate)[2][kParts][4],
                                              const uint4& x) {
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const auto& a = gate[0][part];
    const auto& b = gate[1][part];
    mma<DType::kBF16>(acc, {a[0], b[0], a[1], b[1]}, x.x, x.y);
    mma<DType::kBF16>(acc, {a[2], b[2], a[3], b[3]}, x.z, x.w);
  }
}

/// acc += 16 experts times the first 8 tokens, over a slice, by a warp, straight from global memory.
/// `before_x` runs between the first loads of the gate and the first of x.
template <class Gate, class BeforeX>
__device__ __forceinline__ void multiply(float (&acc)[4], const RouteParams<Gate>& p, int first_expert,
                                         const Slice& slice, const BeforeX& before_x) {
  using Traits = GateTraits<Gate>;
  constexpr int kUnits = Traits::kUnits;
  const int g = threadIdx.x % kWarp / 4, column = threadIdx.x % 4 * kVec;
  for (int first = slice.begin; first < slice.end || first == slice.begin; first += kUnits) {
    uint4 gate[kUnits][2][Traits::kLoads] = {}, x[kUnits] = {};
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int k = (first + u) * kUnit + column;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int expert = first_expert + g + 8 * half;
        if (first + u < slice.end && k < p.D && expert < p.E)
          load_gate(gate[u][half], p.gate + expert * p.gate_stride + k);
      }
    }
    if (first == slice.begin) before_x();
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int k = (first + u) * kUnit + column;
      if (first + u < slice.end && k < p.D && g < p.T)
        x[u] = *reinterpret_cast<const uint4*>(p.x + g * p.x_stride + k);
    }
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      uint32_t a[2][Traits::kParts][4];
      gate_parts(a[0], gate[u][0]);
      gate_parts(a[1], gate[u][1]);
      multiply_unit(acc, a, x[u]);
    }
  }
}

/// Where in [16 experts] x [8 tokens] element i of an accumulator is.
__device__ __forceinline__ int acc_expert(int i) {
  return threadIdx.x % kWarp / 4 + i / 2 * 8;
}
__device__ __forceinline__ int acc_token(int i) {
  return threadIdx.x % 4 * 2 + i % 2;
}

/// Integers in the order of the floats, -0 = +0, NaN lowest.
__device__ __forceinline__ int order_key(float x) {
  if (isnan(x)) return INT_MIN;
  const int bits = __float_as_int(x + 0.0F);
  return bits ^ ((bits >> 31) & INT_MAX);
}

/// What a lane of the warp that routes a token knows beforehand of its experts lane, lane + 32, ...
template <int kLaneExperts>
struct LaneExperts {
  template <class Gate>
  __device__ explicit LaneExperts(const RouteParams<Gate>& p) {
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) {
      const int e = expert(i), group = e * p.group_inverse >> 16;
      group_begin[i] = group * p.group;
      first_slot[i] = group * p.group_picks;
      scale[i] = p.router_scale && e < p.E ? __ldg(p.router_scale + e) : 1;
    }
  }
  __device__ static int expert(int i) {
    return i * kWarp + threadIdx.x % kWarp;
  }
  int group_begin[kLaneExperts];
  int first_slot[kLaneExperts];
  float scale[kLaneExperts];
};

/// The lane's experts that the token picks: their slots (-1: not picked) and routing weights.
template <int kLaneExperts>
struct Picks {
  int slot[kLaneExperts];
  float weight[kLaneExperts];
};

template <int kLaneExperts, class Gate>
__device__ __forceinline__ void write_picks(const RouteParams<Gate>& p, const Picks<kLaneExperts>& picks,
                                            int token) {
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    if (picks.slot[i] < 0) continue;
    p.topk_ids[token * p.ids_stride + picks.slot[i]] = LaneExperts<kLaneExperts>::expert(i);
    p.topk_weights[token * p.weights_stride + picks.slot[i]] = picks.weight[i];
  }
}

/// By a whole warp; `keys` [E] is its shared memory.
template <int kLaneExperts, class Gate>
__device__ __forceinline__ Picks<kLaneExperts> select(const RouteParams<Gate>& p,
                                                      const LaneExperts<kLaneExperts>& experts,
                                                      const float (&logits)[kLaneExperts], int* keys) {
  Picks<kLaneExperts> picks;
  float(&score)[kLaneExperts] = picks.weight;
  float top = -INFINITY, sum = 0, kept = 0;
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const int e = experts.expert(i);
    if (e < p.E) keys[e] = order_key(logits[i]);
    if (e < p.E) top = fmaxf(top, logits[i]);
  }
  __syncwarp();
  top = warp_max(top);
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const int e = experts.expert(i);
    score[i] = e < p.E ? expf(logits[i] - top) : 0;
    sum += score[i];
    picks.slot[i] = -1;
    if (e >= p.E) continue;
    const int* others = keys + experts.group_begin[i];
    const int key = keys[e], own = e - experts.group_begin[i];
    int above = 0;
#pragma unroll 4
    for (int j = 0; j < p.group; ++j) above += others[j] > key || (others[j] == key && j < own);
    if (above < p.group_picks) picks.slot[i] = experts.first_slot[i] + above;
  }
  sum = warp_sum(sum);
  if (p.renormalize) {  // a share of the kept, not of all
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) kept += picks.slot[i] >= 0 ? score[i] : 0;
    sum = warp_sum(kept);
  }
  const float inverse = 1 / sum;
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) score[i] = score[i] * inverse * experts.scale[i];
  return picks;
}

}  // namespace moge::ops::cuda
