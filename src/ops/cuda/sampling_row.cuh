// One request of a batch, sampled by a cluster of kCluster blocks: each holds its part of the vocabulary's
// adjusted logits in shared memory, so device memory is read once whatever the filters do.
//
// All filters keep a prefix of the ranking (falling logit, rising index), so they are one cut. It is found by
// a histogram over the logits' range, then exactly among the few tokens of one bin; a bin of too many is
// split again by the bits of its floats until it is small or holds one value, whose tokens stand by index.
#pragma once
#include <cooperative_groups.h>

#include "ops/cuda/sampling_request.cuh"

namespace moge::ops::cuda {

inline constexpr int kSampleThreads = 512;

template <int kCluster>
class SamplingRow {
  static constexpr int kBins = 2 * kSampleThreads;
  static constexpr int kMaxCandidates = 2 * kSampleThreads;
  static constexpr int kWarps = kSampleThreads / kWarp;
  static constexpr int kSlots = 48;
  /// A bin's weight is kept in digits of 15 bits, whose sums over a block's tokens fit 32: there is no 64-bit
  /// addition to shared memory.
  static constexpr int kDigits = 3, kDigitBits = 15;

 public:
  /// Of a block, beside its slice of the logits.
  struct Shared {
    union {
      struct {
        uint32_t counts[kBins];
        uint32_t weights[kDigits][kBins];
      } histogram;
      Candidate sorted[kMaxCandidates];
    };
    union {
      Candidate candidates[kMaxCandidates];
      unsigned long long upto[kMaxCandidates];
    };
    uint32_t beyond, num_candidates;
    ulonglong2 warp_values[kWarps];
    ulonglong2 slots[kSlots][2];  ///< what blocks tell each other; each slot is written once
  };

  __device__ SamplingRow(const SamplingParams& p, float* z, Shared& shared)
      : p_(p),
        request_(p, blockIdx.x / kCluster),
        shared_(shared),
        z_(z),
        cluster_(cooperative_groups::this_cluster()),
        rank_(static_cast<int>(cluster_.block_rank())),
        first_(rank_ * p.slice),
        size_(max(0, min(p.slice, p.vocab - first_))) {}

  __device__ void run() {
    load();
    const int b = blockIdx.x / kCluster;
    const bool greedy = request_.temperature == 0 || isinf(top_);
    float log_total = raw_max_;  // log sum exp of the logits as they came
    if (p_.logprobs)
      log_total += logf(static_cast<float>(raw_total()) * exp2f(-static_cast<float>(p_.weight_bits)));
    const auto finish = [&](int token) {
      p_.tokens[b] = token;
      if (p_.logprobs) p_.logprobs[b] = request_.logits[token] - log_total;
    };
    if (!greedy) {
      temper();
      draw(finish);
    } else if (rank_ == 0 && threadIdx.x == 0) {
      finish(best_);
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
#pragma unroll
    for (int r = 1; r < kCluster; ++r) all = combine(all, slot<T>(r, s));
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
    for (int step = kWarp / 2; step > 0; step /= 2) x = combine(x, __shfl_xor_sync(kAllLanes, x, step));
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
  /// The sums over the threads before this one, and over all.
  struct Sums {
    uint64_t before, total;
  };
  __device__ Sums block_sums(uint64_t own) {
    const uint64_t inclusive = warp_inclusive(own);
    const int warp = threadIdx.x / kWarp;
    __syncthreads();
    if (threadIdx.x % kWarp == kWarp - 1) shared_.warp_values[warp].x = inclusive;
    __syncthreads();
    Sums sums{inclusive - own, 0};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) sums.before += shared_.warp_values[w].x;
      sums.total += shared_.warp_values[w].x;
    }
    return sums;
  }

  // ---- the steps ----

  /// fn(i) for the block's tokens first_ + i that are this thread's, the same in every pass.
  template <class Fn>
  __device__ void each(const Fn& fn) const {
#pragma unroll 2
    for (int i = threadIdx.x; i < size_; i += kSampleThreads) fn(i);
  }

  /// Adjusted logits to shared memory; the extremes.
  __device__ void load() {
    const bool keep = request_.temperature > 0 || p_.logprobs;
    const Extremes seen = everywhere(request_.penalised() ? look<true>(keep) : look<false>(keep));
    top_ = key_float(seen.best);
    best_ = top_ == -INFINITY ? 0 : seen.token;
    low_ = key_float(seen.low);
    raw_max_ = key_float(seen.raw_max);
  }
  template <bool kPenalised>
  __device__ Extremes look(bool keep) {
    const float* logits = request_.logits + first_;
    float best = -INFINITY, low = INFINITY, raw_max = -INFINITY;
    int token = INT_MAX;
    bool saw_nan = false;
    const auto take = [&](int i, float raw) {
      raw_max = fmaxf(raw_max, raw);
      saw_nan |= isnan(raw);
      float x = raw;
      if constexpr (kPenalised)
        x = request_.adjusted(raw, request_.counts ? request_.counts[first_ + i] : 0,
                              request_.prompt && request_.prompt[first_ + i] != 0);
      x = fmaxf(x, -INFINITY);  // NaN becomes -inf
      if (keep) z_[i] = x;
      if (x > -INFINITY) low = fminf(low, x);
      if (x > best) best = x, token = first_ + i;
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
    return {float_key(best), token, float_key(low), saw_nan ? INT_MAX : float_key(raw_max)};
  }
  __device__ Extremes everywhere(const Extremes& own) {
    const int lane = threadIdx.x % kWarp, s = next_slot_++;
    auto* of_warps = reinterpret_cast<Extremes*>(shared_.warp_values);
    const Extremes warp = own.over_warp();
    if (lane == 0) of_warps[threadIdx.x / kWarp] = warp;
    __syncthreads();
    const Extremes block = of_warps[lane % kWarps].over_warp();
    if (threadIdx.x == 0) slot<Extremes>(rank_, s) = block;
    cluster_.sync();
    return slot<Extremes>(lane % kCluster, s).over_warp();
  }

  /// Sum of the weights exp(logit - largest) over the logits as they came.
  __device__ uint64_t raw_total() {
    const bool penalised = request_.penalised();
    uint64_t sum = 0;
    each([&](int i) {
      sum += fixed_exp((penalised ? request_.logits[first_ + i] : z_[i]) - raw_max_, p_.weight_bits);
    });
    return everywhere(sum, [](uint64_t a, uint64_t b) { return a + b; });
  }

  __device__ void temper() {
    if (request_.temperature == 1)
      each([&](int i) { z_[i] -= top_; });
    else
      each([&](int i) { z_[i] = __fdiv_rn(z_[i] - top_, request_.temperature); });
    low_ = __fdiv_rn(low_ - top_, request_.temperature);
    __syncthreads();
  }

  /// What the shortest prefix of the ranking must hold: a number of tokens, or a weight: `share` of all,
  /// while the target is 0.
  struct Goal {
    bool weigh;
    float share;
    uint64_t target;
    __device__ uint64_t of(uint64_t total) const {
      const auto part = static_cast<uint64_t>(ceil(double{share} * static_cast<double>(total)));
      return min(max(part, uint64_t{1}), total);
    }
  };

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
    uint64_t before;  ///< what the ranking holds before it, tokens or weight
    uint64_t target;
    int index;
    uint32_t count;  ///< of its tokens
    uint32_t upto;   ///< of the tokens down to its end, in the first histogram
  };
  __device__ Binning even() const {
    constexpr float kRange = 32;  // exp(-32) is the last bit of a weight
    const float range = low_ < -kRange ? kRange : -low_;
    return {false, range > 0 ? kBins / range : 0, range, 0, 0, 0};
  }
  /// The first token that min-p refuses ends the prefix before it.
  __device__ Cut floor() const {
    return request_.min_z > 0 ? Cut{float_key(0), best_} : Cut{float_key(request_.min_z), p_.vocab - 1};
  }

  template <class Found>
  __device__ void draw(const Found& found) {
    const bool few = request_.top_k < p_.vocab, share = request_.top_p < 1;
    Cut last = floor();
    if (few || share) {
      Goal goal{
          .weigh = !few, .share = request_.top_p, .target = few ? static_cast<uint64_t>(request_.top_k) : 0};
      Bin bin = find_bin(even(), 0, goal);
      if (bin.upto <= kMaxCandidates) return draw_among(bin, few, found);
      Cut cut = cut_at(goal, bin);
      if (few && share) {  // a share of what top-k kept
        uint64_t kept = 0;
        each([&](int i) {
          if (cut.keeps(z_[i], first_ + i)) kept += fixed_exp(z_[i], p_.weight_bits);
        });
        goal.weigh = true;
        goal.target = goal.of(everywhere(kept, [](uint64_t a, uint64_t b) { return a + b; }));
        bin = find_bin(even(), 0, goal);
        cut = cut_at(goal, bin);
      }
      if (cut < last) last = cut;
    }
    find_by_index({last, false}, found);
  }

  /// The first block gathers the tokens down to the end of `bin` and does the rest.
  template <class Found>
  __device__ void draw_among(const Bin& bin, bool top_k, const Found& found) {
    const Binning binning = even();
    gather([&](float z) { return binning(z) <= bin.index; });
    if (rank_ > 0) return;
    const int n = rank_candidates();
    uint64_t own[2] = {};
#pragma unroll
    for (int j = 0; j < 2; ++j)
      if (2 * threadIdx.x + j < n)
        own[j] = fixed_exp(key_float(shared_.sorted[2 * threadIdx.x + j].key), p_.weight_bits);
    const uint64_t before = block_sums(own[0] + own[1]).before;  // its barriers end the use of `candidates`
    shared_.upto[2 * threadIdx.x] = before + own[0];
    shared_.upto[2 * threadIdx.x + 1] = before + own[0] + own[1];
    __syncthreads();
    // How many of the n stand before the prefix has what it must hold, by counting over all threads.
    const auto count = [&](const auto& holds) {
      return __syncthreads_count(2 * threadIdx.x < n && holds(2 * threadIdx.x)) +
             __syncthreads_count(2 * threadIdx.x + 1 < n && holds(2 * threadIdx.x + 1));
    };
    int kept = top_k ? static_cast<int>(bin.target) : n;
    if (request_.top_p < 1) {
      const Goal goal{true, request_.top_p, 0};
      const uint64_t target = top_k ? goal.of(shared_.upto[kept - 1]) : bin.target;
      kept = min(kept, 1 + count([&](int i) { return shared_.upto[i] < target; }));
    }
    const Cut least = floor();
    kept = min(kept, max(1, count([&](int i) {
                           return least.keeps(key_float(shared_.sorted[i].key), shared_.sorted[i].index);
                         })));
    const uint64_t target = request_.drawn(shared_.upto[kept - 1]);
    const auto weight = [&](int i) { return shared_.upto[i] - (i > 0 ? shared_.upto[i - 1] : 0); };
    for (int i = threadIdx.x; i < kept; i += kSampleThreads) {
      const int token = shared_.sorted[i].index;
      uint64_t sum = 0;  // of the kept tokens up to this one by index
      for (int j = 0; j < kept; ++j) sum += shared_.sorted[j].index <= token ? weight(j) : 0;
      if (sum >= target && sum - weight(i) < target) found(token);
    }
  }

  /// The end of the prefix that meets the goal, which lies in `bin` of even().
  __device__ Cut cut_at(Goal goal, Bin bin) {
    Binning binning = even();
    while (true) {
      goal.target = bin.target;
      const auto inside = [&](float z) { return binning(z) == bin.index; };
      if (bin.count <= kMaxCandidates) return cut_among(inside, bin.before, goal);
      int low = INT_MAX, high = INT_MIN;
      each([&](int i) {
        if (!inside(z_[i])) return;
        low = min(low, float_key(z_[i]));
        high = max(high, float_key(z_[i]));
      });
      low = everywhere(low, [](int a, int b) { return min(a, b); });
      high = everywhere(high, [](int a, int b) { return max(a, b); });
      if (low == high) return cut_among_equals(low, bin.before, goal);
      const uint32_t span = static_cast<uint32_t>(high) - static_cast<uint32_t>(low);
      binning = {true, 0, 0, low, high, span / kBins + 1};
      bin = find_bin(binning, bin.before, goal);
    }
  }

  __device__ Bin find_bin(const Binning& binning, uint64_t before, const Goal& goal) {
    auto& h = shared_.histogram;
    __syncthreads();
    for (int i = threadIdx.x; i < kBins; i += kSampleThreads) {
      h.counts[i] = 0;
      for (int d = 0; d < kDigits; ++d) h.weights[d][i] = 0;
    }
    if (threadIdx.x == 0) shared_.beyond = 0, shared_.num_candidates = 0;
    __syncthreads();
    uint32_t beyond = 0;
    each([&](int i) {
      const int bin = binning(z_[i]);
      if (bin == kBins) ++beyond;
      if (bin < 0 || bin == kBins) return;
      atomicAdd(&h.counts[bin], 1U);
      if (!goal.weigh) return;
      const uint64_t weight = fixed_exp(z_[i], p_.weight_bits);
#pragma unroll
      for (int d = 0; d < kDigits; ++d) {
        auto digit = static_cast<uint32_t>(weight >> (d * kDigitBits));
        if (d + 1 < kDigits) digit &= (1U << kDigitBits) - 1;  // the last holds up to 2^15
        if (digit != 0) atomicAdd(&h.weights[d][bin], digit);
      }
    });
    beyond = __reduce_add_sync(kAllLanes, beyond);
    if (threadIdx.x % kWarp == 0 && beyond > 0) atomicAdd(&shared_.beyond, beyond);
    const int s = next_slot_++;
    cluster_.sync();
    if (rank_ == 0) {  // two bins a thread
      ulonglong2 weight{};
      uint2 count{};
      uint32_t all_beyond = 0;
#pragma unroll
      for (int r = 0; r < kCluster; ++r) {
        const Shared& other = *cluster_.map_shared_rank(&shared_, r);
        const auto n = reinterpret_cast<const uint2*>(other.histogram.counts)[threadIdx.x];
        count.x += n.x, count.y += n.y;
        for (int d = 0; d < kDigits && goal.weigh; ++d) {
          const auto w = reinterpret_cast<const uint2*>(other.histogram.weights[d])[threadIdx.x];
          weight.x += uint64_t{w.x} << (d * kDigitBits);
          weight.y += uint64_t{w.y} << (d * kDigitBits);
        }
        all_beyond += other.beyond;
      }
      if (!goal.weigh) weight = {count.x, count.y};
      const uint32_t upto = static_cast<uint32_t>(block_sums(count.x + count.y).before) + count.x;
      const Sums sums = block_sums(weight.x + weight.y);
      const uint64_t target = goal.target > 0 ? goal.target : goal.of(sums.total);
      const uint64_t first = before + sums.before, second = first + weight.x, end = second + weight.y;
      const int index = 2 * threadIdx.x;
      Bin& result = slot<Bin>(0, s);
      if (first < target && second >= target) result = {first, target, index, count.x, upto};
      if (second < target && end >= target) result = {second, target, index + 1, count.y, upto + count.y};
      if (threadIdx.x == kSampleThreads - 1 && end < target)
        result = {end, target, kBins, all_beyond, upto + count.y + all_beyond};
    }
    return from_first<Bin>(s);
  }

  __device__ uint64_t measure(int key, const Goal& goal) const {
    return goal.weigh ? fixed_exp(key_float(key), p_.weight_bits) : 1;
  }

  /// The tokens `inside`, at most kMaxCandidates, become the first block's candidates.
  template <class Inside>
  __device__ void gather(const Inside& inside) {
    Shared& first = *cluster_.map_shared_rank(&shared_, 0);
    each([&](int i) {
      if (!inside(z_[i])) return;
      first.candidates[atomicAdd(&first.num_candidates, 1U)] = {float_key(z_[i]), first_ + i};
    });
    cluster_.sync();
  }
  /// Sorts them by counting; returns how many there are.
  __device__ int rank_candidates() {
    const int n = static_cast<int>(shared_.num_candidates);
    for (int i = threadIdx.x; i < n; i += kSampleThreads) {
      const Candidate own = shared_.candidates[i];
      int place = 0;
#pragma unroll 4
      for (int j = 0; j < n; ++j) place += shared_.candidates[j].before(own);
      shared_.sorted[place] = own;
    }
    __syncthreads();
    return n;
  }

  template <class Inside>
  __device__ Cut cut_among(const Inside& inside, uint64_t before, const Goal& goal) {
    gather(inside);
    const int s = next_slot_++;
    if (rank_ == 0) {
      const int n = rank_candidates();
      uint64_t own[2] = {};
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int i = 2 * threadIdx.x + j;
        if (i < n) own[j] = measure(shared_.sorted[i].key, goal);
      }
      uint64_t sum = before + block_sums(own[0] + own[1]).before;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int i = 2 * threadIdx.x + j;
        // Without an end (weights beyond the histogram's range are 0) it is the last of them.
        if (i < n && sum < goal.target && (sum + own[j] >= goal.target || i == n - 1))
          slot<Cut>(0, s) = {shared_.sorted[i].key, shared_.sorted[i].index};
        sum += own[j];
      }
    }
    return from_first<Cut>(s);
  }

  /// All with this key weigh the same: the prefix ends with the m-th of them by index.
  __device__ Cut cut_among_equals(int key, uint64_t before, const Goal& goal) {
    const uint64_t each_weighs = max(measure(key, goal), uint64_t{1});
    const int s = next_slot_++;
    find_by_index({{key, p_.vocab}, true, (goal.target - before + each_weighs - 1) / each_weighs},
                  [&](int token) {
                    slot<Cut>(0, s) = {key, token};
                  });
    return from_first<Cut>(s);
  }

  /// A walk by rising index: over the kept tokens to the weight that the draw asks for, or over those with
  /// the cut's key to the `target`-th.
  struct Walk {
    Cut cut;
    bool equals;
    uint64_t target = 0;
  };

  /// found(token) by one thread.
  template <class Found>
  __device__ void find_by_index(const Walk& walk, const Found& found) {
    const auto weight = [&](int i) -> uint64_t {
      if (walk.equals) return float_key(z_[i]) == walk.cut.key;
      return walk.cut.keeps(z_[i], first_ + i) ? fixed_exp(z_[i], p_.weight_bits) : 0;
    };
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int stretch = (size_ + kWarps * kWarp - 1) / (kWarps * kWarp) * kWarp;  // a warp's
    const int begin = warp * stretch, end = min(size_, begin + stretch);
    uint64_t sum = 0;
#pragma unroll 2
    for (int i = begin + lane; i < end; i += kWarp) sum += weight(i);
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    __syncthreads();
    if (lane == 0) shared_.warp_values[warp].x = sum;
    __syncthreads();
    uint64_t before = 0, block_sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) before += shared_.warp_values[w].x;
      block_sum += shared_.warp_values[w].x;
    }
    const int s = next_slot_++;
    if (threadIdx.x == 0) slot<uint64_t>(rank_, s) = block_sum;
    cluster_.sync();
    uint64_t total = 0;
#pragma unroll
    for (int r = 0; r < kCluster; ++r) {
      const uint64_t of_block = slot<uint64_t>(r, s);
      if (r < rank_) before += of_block;
      total += of_block;
    }
    const uint64_t target = walk.equals ? min(walk.target, total) : request_.drawn(total);
    if (target <= before || target > before + sum) return;
    for (int i = begin;; i += kWarp) {  // this warp's: it holds the target
      const uint64_t own = i + lane < end ? weight(i + lane) : 0;
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
};

}  // namespace moge::ops::cuda
