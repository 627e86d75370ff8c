// One request of a batch, sampled by a cluster of eight blocks: each holds an eighth of the vocabulary's
// adjusted logits in shared memory, so device memory is read once whatever the filters do.
//
// Weights exp(z) are fixed-point integers: their sums are the same in any order, so the threads may add as
// they come, and precise to some 1e-11, so the tokens are those of the reference (which sums in double).
//
// All filters keep a prefix of the ranking (falling logit, rising index), so they are one cut. It is found by
// a histogram over the logits' range, then exactly among the few tokens of one bin; a bin of too many is
// split again by the bits of its floats until it is small or holds one value, whose tokens stand by index.
#pragma once
#include <cooperative_groups.h>

#include "core/rng.h"
#include "ops/cuda/reduce.cuh"
#include "ops/sampling.h"

namespace moge::ops::cuda {

inline constexpr int kSampleCluster = 8;
inline constexpr int kSampleThreads = 512;

struct SamplingParams {
  int32_t* tokens;
  float* logprobs;
  const float* logits;
  const float *temperature, *top_p, *min_p, *repetition, *presence, *frequency;
  const int32_t* top_k;
  const int32_t* counts;
  const uint8_t* prompt;
  const int64_t *seeds, *steps;
  int64_t logits_stride, counts_stride, prompt_stride;
  int vocab;
  int slice;        ///< tokens of a block, a multiple of 4
  int weight_bits;  ///< the weight of the best token is 2^weight_bits; all together fit 63 bits
};

/// A request's parameters, those without a meaning switched off (ops/sampling.h). NaN takes the "off" side.
struct Request {
  __device__ Request(const SamplingParams& p, int b)
      : logits(p.logits + b * p.logits_stride),
        counts(p.counts ? p.counts + b * p.counts_stride : nullptr),
        prompt(p.prompt ? p.prompt + b * p.prompt_stride : nullptr),
        temperature(p.temperature[b] > 0 ? p.temperature[b] : 0.0F),
        top_k(p.top_k[b] >= 1 ? min(p.top_k[b], p.vocab) : p.vocab),
        top_p(p.top_p[b] < 1 ? fmaxf(p.top_p[b], 0.0F) : 1.0F),
        min_z(p.min_p[b] > 0 ? static_cast<float>(log(double{p.min_p[b]})) : -INFINITY),
        repetition(p.repetition[b] > 0 ? p.repetition[b] : 1.0F),
        presence(isnan(p.presence[b]) ? 0.0F : p.presence[b]),
        frequency(isnan(p.frequency[b]) ? 0.0F : p.frequency[b]) {
    const Rng rng(static_cast<uint64_t>(p.seeds[b]));
    const auto step = static_cast<uint64_t>(p.steps[b]);
    const uint64_t bits = uint64_t{rng.bits(2 * step)} << 32 | rng.bits(2 * step + 1);
    u = static_cast<double>(bits >> 11) * 0x1p-53;
  }
  __device__ bool penalised() const {
    return (repetition != 1 && (counts || prompt)) || ((presence != 0 || frequency != 0) && counts);
  }
  /// Rounds as the reference: no fused operations.
  __device__ float adjusted(float x, int32_t count, bool prompted) const {
    if (isnan(x)) x = -INFINITY;
    if (count > 0 || prompted) x = x > 0 ? __fdiv_rn(x, repetition) : __fmul_rn(x, repetition);
    if (count > 0) x = __fsub_rn(__fsub_rn(x, __fmul_rn(frequency, static_cast<float>(count))), presence);
    return x;
  }
  const float* logits;
  const int32_t* counts;
  const uint8_t* prompt;
  float temperature;
  int top_k;
  float top_p, min_z, repetition, presence, frequency;
  double u;
};

/// Integers in the order of the floats, -0 = +0. Not for NaN.
__device__ __forceinline__ int float_key(float x) {
  const int bits = __float_as_int(x + 0.0F);
  return bits ^ ((bits >> 31) & INT_MAX);
}

/// round(2^bits exp(z)) for z <= 0, to a relative error of 1e-11: exp(z) = 2^n exp(r), |r| <= ln(2) / 2.
__device__ __forceinline__ uint64_t fixed_exp(float z, int bits) {
  if (!(z > -45.0F)) return 0;
  const double t = double{z} * 1.4426950408889634, n = rint(t), r = (t - n) * 0.6931471805599453;
  double e = 1.0 / 362880;
  e = fma(e, r, 1.0 / 40320);
  e = fma(e, r, 1.0 / 5040);
  e = fma(e, r, 1.0 / 720);
  e = fma(e, r, 1.0 / 120);
  e = fma(e, r, 1.0 / 24);
  e = fma(e, r, 1.0 / 6);
  e = fma(e, r, 0.5);
  e = fma(e, r, 1.0);
  e = fma(e, r, 1.0);
  const double power = __longlong_as_double(static_cast<int64_t>(1023 + bits + static_cast<int>(n)) << 52);
  return static_cast<uint64_t>(__double2ll_rn(e * power));
}

/// The last token that is kept.
struct Cut {
  int key, index;
  __device__ bool keeps(float z, int index_of_z) const {
    const int k = float_key(z);
    return k > key || (k == key && index_of_z <= index);
  }
  __device__ bool operator<(const Cut& other) const {  ///< keeps less
    return key > other.key || (key == other.key && index < other.index);
  }
};

struct Candidate {
  int key, index;
  __device__ bool before(const Candidate& o) const {
    return key > o.key || (key == o.key && index < o.index);
  }
};

struct Span {
  float low, high;
};

/// x of the lane whose number differs by the bits of `step`.
template <class T>
__device__ __forceinline__ T from_lane(T x, int step) {
  return __shfl_xor_sync(kAllLanes, x, step);
}
__device__ __forceinline__ Span from_lane(Span x, int step) {
  return {from_lane(x.low, step), from_lane(x.high, step)};
}

class SamplingRow {
  static constexpr int kBins = 2 * kSampleThreads;
  static constexpr int kMaxCandidates = 2 * kSampleThreads;
  static constexpr int kWarps = kSampleThreads / kWarp;
  static constexpr int kSlots = 64;

 public:
  /// Of a block, beside its slice of the logits.
  struct Shared {
    union {
      struct {
        uint32_t counts[kBins];
        unsigned long long weights[kBins];
      } histogram;
      Candidate sorted[kMaxCandidates];
    };
    Candidate candidates[kMaxCandidates];
    unsigned long long beyond_weight;
    uint32_t beyond_count, num_candidates;
    unsigned long long warp_values[kWarps];
    double slots[kSlots][2];  ///< what blocks tell each other; each slot is written once
  };

  __device__ SamplingRow(const SamplingParams& p, float* z, Shared& shared)
      : p_(p),
        request_(p, blockIdx.x / kSampleCluster),
        shared_(shared),
        z_(z),
        cluster_(cooperative_groups::this_cluster()),
        rank_(static_cast<int>(cluster_.block_rank())),
        first_(rank_ * p.slice),
        size_(max(0, min(p.slice, p.vocab - first_))) {}

  __device__ void run() {
    load();
    const int b = blockIdx.x / kSampleCluster;
    const bool greedy = request_.temperature == 0 || isinf(top_);
    float log_total = 0;
    if (p_.logprobs) log_total = raw_max_ + logf(raw_total());
    const auto finish = [&](int token) {
      p_.tokens[b] = token;
      if (p_.logprobs) p_.logprobs[b] = static_cast<float>(double{request_.logits[token]} - log_total);
    };
    if (greedy) {
      if (rank_ == 0 && threadIdx.x == 0) finish(best_);
    } else {
      temper();
      const Cut last = cut();
      find_by_index([&](float z, int v) { return last.keeps(z, v) ? fixed_exp(z, p_.weight_bits) : 0; },
                    [&](uint64_t total) {
                      const auto below = static_cast<uint64_t>(request_.u * static_cast<double>(total));
                      return min(below + 1, total);
                    },
                    finish);
    }
    cluster_.sync();  // a block's shared memory outlives its readers
  }

 private:
  // ---- what threads, blocks and the cluster agree on ----

  template <class T>
  __device__ T& slot(int rank, int s) {
    static_assert(sizeof(T) <= sizeof(shared_.slots[0]));
    return *cluster_.map_shared_rank(reinterpret_cast<T*>(shared_.slots[s]), rank);
  }
  /// Combines each block's value (of its thread 0), in the order of the blocks.
  template <class T, class Combine>
  __device__ T all_blocks(const T& own, const Combine& combine) {
    const int s = next_slot_++;
    if (threadIdx.x == 0) slot<T>(rank_, s) = own;
    cluster_.sync();
    T all = slot<T>(0, s);
    for (int r = 1; r < kSampleCluster; ++r) all = combine(all, slot<T>(r, s));
    return all;
  }
  /// What one thread of the first block says.
  template <class T>
  __device__ T from_first(int s) {
    cluster_.sync();
    return slot<T>(0, s);
  }

  template <class T, class Combine>
  __device__ T all_threads(T x, const Combine& combine) {
    static_assert(sizeof(T) <= sizeof(shared_.warp_values[0]));
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) x = combine(x, from_lane(x, step));
    auto* values = reinterpret_cast<T*>(shared_.warp_values);
    __syncthreads();
    if (threadIdx.x % kWarp == 0) values[threadIdx.x / kWarp] = x;
    __syncthreads();
    x = values[0];
    for (int w = 1; w < kWarps; ++w) x = combine(x, values[w]);
    return x;
  }
  template <class T, class Combine>
  __device__ T everywhere(const T& x, const Combine& combine) {
    return all_blocks(all_threads(x, combine), combine);
  }

  __device__ static uint64_t warp_inclusive(uint64_t x) {
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const uint64_t below = __shfl_up_sync(kAllLanes, x, step);
      if (threadIdx.x % kWarp >= step) x += below;
    }
    return x;
  }
  /// The sum over the threads before this one.
  __device__ uint64_t exclusive_sum(uint64_t own) {
    const uint64_t inclusive = warp_inclusive(own);
    const int warp = threadIdx.x / kWarp;
    __syncthreads();
    if (threadIdx.x % kWarp == kWarp - 1) shared_.warp_values[warp] = inclusive;
    __syncthreads();
    uint64_t before = inclusive - own;
    for (int w = 0; w < warp; ++w) before += shared_.warp_values[w];
    return before;
  }

  // ---- the steps ----

  /// fn(i) for the block's tokens first_ + i that are this thread's, the same in every pass.
  template <class Fn>
  __device__ void each(const Fn& fn) const {
    for (int i = threadIdx.x; i < size_; i += kSampleThreads) fn(i);
  }

  /// Adjusted logits to shared memory; the best token, the extremes.
  __device__ void load() {
    const bool penalised = request_.penalised();
    const float* logits = request_.logits + first_;
    uint64_t best = 0;
    float raw_max = -INFINITY, low = INFINITY;
    const auto take = [&](int i, float raw) {
      raw_max = fmaxf(raw_max, raw);
      saw_nan_ |= isnan(raw);
      float x = isnan(raw) ? -INFINITY : raw;
      if (penalised)
        x = request_.adjusted(raw, request_.counts ? request_.counts[first_ + i] : 0,
                              request_.prompt && request_.prompt[first_ + i] != 0);
      z_[i] = x;
      if (x > -INFINITY) low = fminf(low, x);
      const uint64_t key = static_cast<uint32_t>(float_key(x)) ^ 0x80000000U;
      best = max(best, key << 32 | static_cast<uint32_t>(INT_MAX - (first_ + i)));
    };
    if (reinterpret_cast<uintptr_t>(logits) % sizeof(float4) == 0) {
#pragma unroll 4
      for (int i = threadIdx.x * 4; i < size_ / 4 * 4; i += kSampleThreads * 4) {
        const float4 x = *reinterpret_cast<const float4*>(logits + i);
        take(i, x.x), take(i + 1, x.y), take(i + 2, x.z), take(i + 3, x.w);
      }
      for (int i = size_ / 4 * 4 + threadIdx.x; i < size_; i += kSampleThreads) take(i, logits[i]);
    } else {
      each([&](int i) { take(i, logits[i]); });
    }
    best = everywhere(best, [](uint64_t a, uint64_t b) { return max(a, b); });
    best_ = INT_MAX - static_cast<int>(static_cast<uint32_t>(best));
    const int key = static_cast<int>(static_cast<uint32_t>(best >> 32) ^ 0x80000000U);
    top_ = __int_as_float(key ^ ((key >> 31) & INT_MAX));
    const Span span = everywhere(Span{low, raw_max}, [](const Span& a, const Span& b) {
      return Span{fminf(a.low, b.low), fmaxf(a.high, b.high)};
    });
    low_ = span.low;
    raw_max_ = span.high;
  }

  /// Sum of exp(logit - largest) over the logits as they came.
  __device__ float raw_total() {
    float sum = 0;
    const bool penalised = request_.penalised();
    each([&](int i) { sum += expf((penalised ? request_.logits[first_ + i] : z_[i]) - raw_max_); });
    if (saw_nan_) sum = NAN;
    return everywhere(sum, [](float a, float b) { return a + b; });
  }

  __device__ void temper() {
    each([&](int i) { z_[i] = __fdiv_rn(z_[i] - top_, request_.temperature); });
    low_ = __fdiv_rn(low_ - top_, request_.temperature);
    __syncthreads();
  }

  __device__ Cut cut() {
    Cut last{float_key(-INFINITY), p_.vocab - 1};
    if (request_.top_k < p_.vocab) last = cut_at<false>(request_.top_k);
    if (request_.top_p < 1) {
      uint64_t kept = 0;
      each([&](int i) {
        if (last.keeps(z_[i], first_ + i)) kept += fixed_exp(z_[i], p_.weight_bits);
      });
      kept = everywhere(kept, [](uint64_t a, uint64_t b) { return a + b; });
      const double share = ceil(double{request_.top_p} * static_cast<double>(kept));
      last = cut_at<true>(min(max(static_cast<uint64_t>(share), uint64_t{1}), kept));
    }
    const Cut floor =
        request_.min_z > 0 ? Cut{float_key(0), best_} : Cut{float_key(request_.min_z), p_.vocab - 1};
    return floor < last ? floor : last;
  }

  /// How a histogram sorts tokens into bins, the highest first: evenly over [-range, 0], the rest `beyond`;
  /// or evenly over the keys low .. high.
  struct Binning {
    bool by_key;
    float scale, range;
    int low, high;
    uint32_t width;
    __device__ int operator()(float z) const {
      if (!by_key) return z < -range ? kBins : min(kBins - 1, static_cast<int>(-z * scale));
      const int key = float_key(z);
      if (key < low || key > high) return -1;
      return static_cast<int>((static_cast<uint32_t>(high) - static_cast<uint32_t>(key)) / width);
    }
  };
  struct Bin {
    uint64_t before;  ///< what the ranking holds before it
    uint32_t index, count;
  };

  /// The shortest prefix of the ranking that holds `target` tokens or, with kWeigh, that weight.
  template <bool kWeigh>
  __device__ Cut cut_at(uint64_t target) {
    constexpr float kRange = 32;  // exp(-32) is the last bit of a weight
    const float range = low_ < -kRange ? kRange : -low_;
    Binning binning{false, range > 0 ? kBins / range : 0, range, 0, 0, 0};
    uint64_t before = 0;
    while (true) {
      const Bin bin = find_bin<kWeigh>(binning, before, target);
      before = bin.before;
      const auto inside = [&](float z) { return binning(z) == static_cast<int>(bin.index); };
      if (bin.count <= kMaxCandidates) return cut_among<kWeigh>(inside, before, target);
      int low = INT_MAX, high = INT_MIN;
      each([&](int i) {
        if (!inside(z_[i])) return;
        low = min(low, float_key(z_[i]));
        high = max(high, float_key(z_[i]));
      });
      low = everywhere(low, [](int a, int b) { return min(a, b); });
      high = everywhere(high, [](int a, int b) { return max(a, b); });
      if (low == high) return cut_among_equals<kWeigh>(low, before, target);
      const uint32_t span = static_cast<uint32_t>(high) - static_cast<uint32_t>(low);
      binning = {true, 0, 0, low, high, span / kBins + 1};
    }
  }

  template <bool kWeigh>
  __device__ Bin find_bin(const Binning& binning, uint64_t before, uint64_t target) {
    auto& h = shared_.histogram;
    __syncthreads();
    for (int i = threadIdx.x; i < kBins; i += kSampleThreads) h.counts[i] = 0, h.weights[i] = 0;
    if (threadIdx.x == 0) shared_.beyond_count = 0, shared_.beyond_weight = 0, shared_.num_candidates = 0;
    __syncthreads();
    uint32_t beyond = 0;
    each([&](int i) {
      const int bin = binning(z_[i]);
      if (bin < 0) return;
      if (bin == kBins) {
        ++beyond;
        return;
      }
      atomicAdd(&h.counts[bin], 1U);
      if (kWeigh)
        atomicAdd(&h.weights[bin], static_cast<unsigned long long>(fixed_exp(z_[i], p_.weight_bits)));
    });
    beyond = __reduce_add_sync(kAllLanes, beyond);
    if (threadIdx.x % kWarp == 0 && beyond > 0) atomicAdd(&shared_.beyond_count, beyond);
    const int s = next_slot_++;
    cluster_.sync();
    if (rank_ == 0) {
      // Two bins a thread; the measure of all blocks.
      uint64_t measure[2] = {};
      uint32_t count[2] = {};
      uint32_t all_beyond = 0;
      for (int r = 0; r < kSampleCluster; ++r) {
        const Shared& other = *cluster_.map_shared_rank(&shared_, r);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const uint32_t n = other.histogram.counts[2 * threadIdx.x + j];
          count[j] += n;
          measure[j] += kWeigh ? other.histogram.weights[2 * threadIdx.x + j] : n;
        }
        all_beyond += other.beyond_count;
      }
      uint64_t sum = before + exclusive_sum(measure[0] + measure[1]);
      const auto result = [&](uint64_t sum_before, uint32_t index, uint32_t n) {
        slot<Bin>(0, s) = {sum_before, index, n};
      };
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        if (sum < target && sum + measure[j] >= target) result(sum, 2 * threadIdx.x + j, count[j]);
        sum += measure[j];
      }
      // The weights beyond the range are a rounding of the last token's: it is the last bin's, then.
      if (threadIdx.x == kSampleThreads - 1 && sum < target) result(sum, kBins, all_beyond);
    }
    return from_first<Bin>(s);
  }

  template <bool kWeigh>
  __device__ uint64_t measure(int key) const {
    return kWeigh ? fixed_exp(__int_as_float(key ^ ((key >> 31) & INT_MAX)), p_.weight_bits) : 1;
  }

  /// The tokens `inside`, at most kMaxCandidates, are gathered by the first block and ranked.
  template <bool kWeigh, class Inside>
  __device__ Cut cut_among(const Inside& inside, uint64_t before, uint64_t target) {
    Shared& first = *cluster_.map_shared_rank(&shared_, 0);
    each([&](int i) {
      if (!inside(z_[i])) return;
      first.candidates[atomicAdd(&first.num_candidates, 1U)] = {float_key(z_[i]), first_ + i};
    });
    const int s = next_slot_++;
    cluster_.sync();
    if (rank_ == 0) {
      const int n = static_cast<int>(shared_.num_candidates);
      for (int i = threadIdx.x; i < n; i += kSampleThreads) {
        const Candidate own = shared_.candidates[i];
        int place = 0;
        for (int j = 0; j < n; ++j) place += shared_.candidates[j].before(own);
        shared_.sorted[place] = own;
      }
      __syncthreads();
      uint64_t own[2] = {};
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int i = 2 * threadIdx.x + j;
        if (i < n) own[j] = measure<kWeigh>(shared_.sorted[i].key);
      }
      uint64_t sum = before + exclusive_sum(own[0] + own[1]);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int i = 2 * threadIdx.x + j;
        // When rounding leaves the target out of reach, the last one ends the prefix.
        if (i < n && sum < target && (sum + own[j] >= target || i == n - 1))
          slot<Cut>(0, s) = {shared_.sorted[i].key, shared_.sorted[i].index};
        sum += own[j];
      }
    }
    return from_first<Cut>(s);
  }

  /// All with this key weigh the same: the prefix ends with the m-th of them by index.
  template <bool kWeigh>
  __device__ Cut cut_among_equals(int key, uint64_t before, uint64_t target) {
    const uint64_t each_weighs = max(measure<kWeigh>(key), uint64_t{1});
    const uint64_t m = (target - before + each_weighs - 1) / each_weighs;
    const int s = next_slot_++;
    find_by_index([&](float z, int) { return uint64_t{float_key(z) == key}; },
                  [&](uint64_t total) { return min(m, total); },
                  [&](int token) {
                    slot<Cut>(0, s) = {key, token};
                  });
    return from_first<Cut>(s);
  }

  /// found(token) by one thread, for the first token by index up to which weights sum to need(total).
  template <class Weight, class Need, class Found>
  __device__ void find_by_index(const Weight& weight, const Need& need, const Found& found) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int stretch = (size_ + kWarps * kWarp - 1) / (kWarps * kWarp) * kWarp;  // a warp's
    const int begin = warp * stretch, end = min(size_, begin + stretch);
    uint64_t sum = 0;
    for (int i = begin + lane; i < end; i += kWarp) sum += weight(z_[i], first_ + i);
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    __syncthreads();
    if (lane == 0) shared_.warp_values[warp] = sum;
    __syncthreads();
    uint64_t before_warp = 0, block_sum = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) before_warp += shared_.warp_values[w];
      block_sum += shared_.warp_values[w];
    }
    const int s = next_slot_++;
    if (threadIdx.x == 0) slot<uint64_t>(rank_, s) = block_sum;
    cluster_.sync();
    uint64_t total = 0, before = before_warp;
    for (int r = 0; r < kSampleCluster; ++r) {
      const uint64_t of_block = slot<uint64_t>(r, s);
      if (r < rank_) before += of_block;
      total += of_block;
    }
    const uint64_t target = need(total);
    if (target <= before || target > before + sum) return;
    for (int i = begin;; i += kWarp) {  // this warp's: it has the target
      const uint64_t own = i + lane < end ? weight(z_[i + lane], first_ + i + lane) : 0;
      const uint64_t upto = before + warp_inclusive(own);
      if (upto >= target && upto - own < target) found(first_ + i + lane);
      before = __shfl_sync(kAllLanes, upto, kWarp - 1);
      if (before >= target) return;
    }
  }

  const SamplingParams& p_;
  Request request_;
  Shared& shared_;
  float* z_;
  cooperative_groups::cluster_group cluster_;
  int rank_, first_, size_;
  int next_slot_ = 0;
  int best_ = 0;
  float top_ = 0, low_ = 0, raw_max_ = 0;
  bool saw_nan_ = false;
};

}  // namespace moge::ops::cuda
