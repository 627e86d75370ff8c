// Sampling without sorting the vocabulary. Every filter keeps a prefix of the ranking, so all of them
// together are one cut, found by partial selection among the few tokens above a bound: the k-th largest of
// the maxima of blocks is a bound that at least k tokens reach. A nucleus that is larger than a first guess
// is closed in on by bisecting the logit of its last token; a pass of that is a vectorised sum.
#include "ops/cpu/sampling.h"

#include <algorithm>
#include <cmath>

#include "ops/cpu/isa.h"
#include "ops/cpu/scratch.h"
#include "ops/cpu/vec/sampling.h"
#include "ops/cpu/vec/softmax.h"

namespace moge::ops::cpu {

namespace {

using vec::kVocabBlock;

struct Kernels {
  const vec::SamplingKernels& sampling;
  const vec::SoftmaxKernels& softmax;
};

/// A token and its adjusted logit, relative to the largest.
struct Ranked {
  float z;
  int32_t token;
  bool before(const Ranked& other) const { return z != other.z ? z > other.z : token < other.token; }
};
constexpr auto kBefore = [](const Ranked& a, const Ranked& b) { return a.before(b); };

double weight(float z) {
  return std::exp(double{z});
}

/// The shortest prefix of the ranking of c[0, n) that weighs at least `target` (all of it when nothing does).
/// Moves that prefix to the front, in no order.
int64_t prefix_of_weight(Ranked* c, int64_t n, double target) {
  constexpr int64_t kSmall = 64;
  int64_t low = 0, high = n;
  double below = 0;  // the weight of c[0, low)
  while (high - low > kSmall) {
    const int64_t middle = low + (high - low) / 2;
    std::nth_element(c + low, c + middle, c + high, kBefore);
    double half = 0;
    for (int64_t i = low; i < middle; ++i) half += weight(c[i].z);
    if (below + half >= target) {
      high = middle;
    } else {
      low = middle;
      below += half;
    }
  }
  std::sort(c + low, c + high, kBefore);
  while (low < high && (low == 0 || below < target)) below += weight(c[low++].z);
  return low;
}

/// One thread's buffers and the steps for one request.
class Row {
 public:
  Row(const Kernels& kernels, int64_t V, Scratch& scratch)
      : kernels_(kernels),
        V_(V),
        blocks_((V + kVocabBlock - 1) / kVocabBlock),
        z_(scratch.take<float>(V)),
        block_max_(scratch.take<float>(blocks_)),
        order_(scratch.take<float>(blocks_)),
        block_sum_(scratch.take<double>(blocks_)),
        candidates_(scratch.take<Ranked>(V)) {}

  int64_t pick(const SamplingRequest& r) {
    const vec::Penalties penalties{r.counts, r.prompt, r.repetition, r.presence, r.frequency};
    for (int64_t b = 0; b < blocks_; ++b)
      block_max_[b] = kernels_.sampling.adjust(z_ + b * kVocabBlock, r.logits, size(b), b * kVocabBlock,
                                               r.penalised() ? &penalties : nullptr);
    const float* best_block = std::max_element(block_max_, block_max_ + blocks_);
    const float top = *best_block;
    const int64_t best = std::find(z_ + (best_block - block_max_) * kVocabBlock, z_ + V_, top) - z_;
    if (r.temperature == 0 || std::isinf(top)) return best;
    kernels_.sampling.temper(z_, V_, top, r.temperature);
    kernels_.sampling.temper(block_max_, blocks_, top, r.temperature);
    return draw(cut(r, best), r.u);
  }

 private:
  int64_t size(int64_t block) const { return std::min(kVocabBlock, V_ - block * kVocabBlock); }

  /// The last token that the filters keep.
  Ranked cut(const SamplingRequest& r, int64_t best) {
    Ranked last{-INFINITY, static_cast<int32_t>(V_ - 1)};
    if (r.top_k < V_ || r.top_p < 1) {
      int64_t n = top_k(r.top_k);
      if (r.top_p < 1) n = top_p(r, n);
      last = *std::max_element(candidates_, candidates_ + n, kBefore);
    }
    if (r.min_z > 0) return {0, static_cast<int32_t>(best)};
    const Ranked bound{r.min_z, static_cast<int32_t>(V_ - 1)};
    if (bound.before(last)) last = bound;
    return last;
  }

  /// The k first tokens as candidates, in no order; without a limit only some of the first ones.
  int64_t top_k(int64_t k) {
    constexpr int64_t kFirstGuess = 512;  // a nucleus is seldom larger
    const bool limited = k < V_;
    const int64_t n = collect(limited ? k : kFirstGuess);
    if (!limited || k >= n) return n;
    std::nth_element(candidates_, candidates_ + k - 1, candidates_ + n, kBefore);
    return k;
  }

  /// Of n candidates, those that top-p keeps; or, without top-k, the last ones that it keeps.
  int64_t top_p(const SamplingRequest& r, int64_t n) {
    double mass = 0;
    for (int64_t i = 0; i < n; ++i) mass += weight(candidates_[i].z);
    if (r.top_k < V_) return prefix_of_weight(candidates_, n, r.top_p * mass);
    double total = 0;
    for (int64_t b = 0; b < blocks_; ++b)
      total += double{kernels_.sampling.sum_exp(z_ + b * kVocabBlock, size(b))};
    const double target = r.top_p * total;
    if (mass >= target || n == V_) return prefix_of_weight(candidates_, n, target);
    const float bound = std::min_element(candidates_, candidates_ + n, [](const Ranked& a, const Ranked& b) {
                          return a.z < b.z;
                        })->z;
    const auto [count, before] = last_of_nucleus(target, {bound, mass, n});
    return prefix_of_weight(candidates_, count, target - before);
  }

  /// The tokens with z >= bound.
  struct Above {
    float bound;
    double mass;
    int64_t count;
  };
  Above above(float bound) const {
    Above result{bound, 0, 0};
    for (int64_t b = 0; b < blocks_; ++b) {
      if (block_max_[b] < bound) continue;
      int64_t count = 0;
      result.mass += double{kernels_.sampling.sum_exp_from(z_ + b * kVocabBlock, size(b), bound, &count)};
      result.count += count;
    }
    return result;
  }

  /// Gathers few tokens, among them the one where the nucleus of weight `target` ends, given that all of
  /// `high` lies before. Returns their number, and the weight of the tokens before them.
  std::pair<int64_t, double> last_of_nucleus(double target, Above high) {
    constexpr float kNothing = -104;  // exp is 0 below
    constexpr int64_t kFew = 1024;
    Above low = high;
    for (float step = 0.5F; low.mass < target && low.bound > kNothing; step *= 2)
      low = above(std::max(high.bound - step, kNothing));
    if (low.mass < target) low = {-INFINITY, low.mass, V_};  // rounding: the target asks for everything
    while (low.count - high.count > kFew && low.bound > -INFINITY) {
      const Above middle = above(low.bound + (high.bound - low.bound) / 2);
      if (middle.bound == low.bound || middle.bound == high.bound) break;  // ties
      (middle.mass < target ? high : low) = middle;
    }
    int64_t n = 0;
    for (int64_t b = 0; b < blocks_; ++b) {
      if (block_max_[b] < low.bound) continue;
      for (int64_t v = b * kVocabBlock; v < b * kVocabBlock + size(b); ++v)
        if (z_[v] >= low.bound && z_[v] < high.bound) candidates_[n++] = {z_[v], static_cast<int32_t>(v)};
    }
    return {n, high.mass};
  }

  /// Gathers at least the `count` first tokens, and all that tie with the last.
  int64_t collect(int64_t count) {
    float bound = -INFINITY;
    if (count < blocks_) {
      std::copy_n(block_max_, blocks_, order_);
      std::nth_element(order_, order_ + count - 1, order_ + blocks_, std::greater<>());
      bound = order_[count - 1];
    }
    int64_t n = 0;
    for (int64_t b = 0; b < blocks_; ++b) {
      if (block_max_[b] < bound) continue;
      for (int64_t v = b * kVocabBlock; v < b * kVocabBlock + size(b); ++v)
        if (z_[v] >= bound) candidates_[n++] = {z_[v], static_cast<int32_t>(v)};
    }
    return n;
  }

  /// Draws among the tokens up to `last`.
  int64_t draw(const Ranked& last, double u) {
    for (int64_t v = last.token + 1; v < V_; ++v) z_[v] = z_[v] == last.z ? -INFINITY : z_[v];  // ties
    const bool all = std::isinf(last.z);
    double total = 0;
    for (int64_t b = 0; b < blocks_; ++b) {
      const float* z = z_ + b * kVocabBlock;
      int64_t count = 0;
      block_sum_[b] = all                       ? kernels_.sampling.sum_exp(z, size(b))
                      : block_max_[b] >= last.z ? kernels_.sampling.sum_exp_from(z, size(b), last.z, &count)
                                                : 0;
      total += block_sum_[b];
    }
    double before = 0;
    int64_t token = 0;
    for (int64_t b = 0; b < blocks_; ++b) {
      if (block_sum_[b] == 0) continue;
      if (before + block_sum_[b] <= u * total) {
        before += block_sum_[b];
        continue;
      }
      for (int64_t v = b * kVocabBlock; v < b * kVocabBlock + size(b); ++v) {
        const double p = z_[v] >= last.z ? weight(z_[v]) : 0;
        if (p == 0) continue;
        token = v;
        before += p;
        if (before > u * total) break;
      }
      break;
    }
    return token;
  }

  const Kernels& kernels_;
  int64_t V_, blocks_;
  float* z_;            // [V]
  float* block_max_;    // [blocks]
  float* order_;        // [blocks]
  double* block_sum_;   // [blocks]
  Ranked* candidates_;  // [V]
};

constexpr Kernels kAvx2{vec::avx2::sampling, vec::avx2::softmax};
constexpr Kernels kAvx512{vec::avx512::sampling, vec::avx512::softmax};

template <const Kernels& kernels>
void run(ExecContext& ctx, const Sampling& a, std::span<std::byte> ws) {
  const int64_t thread_bytes = static_cast<int64_t>(ws.size()) / ctx.pool->num_threads();
  ctx.pool->run(a.logits.dim(0), [&](int64_t b, int thread) {
    const SamplingRequest r(a, b);
    Scratch scratch(ws.subspan(thread * thread_bytes));
    const int64_t token = Row(kernels, r.V, scratch).pick(r);
    a.tokens.ptr<int32_t>()[b] = static_cast<int32_t>(token);
    if (!a.logprobs) return;
    const vec::SoftmaxStats raw = kernels.softmax.stats(r.logits, r.V);
    a.logprobs.ptr<float>()[b] =
        static_cast<float>(double{r.logits[token]} - raw.max - std::log(double{raw.sum}));
  });
}

int64_t workspace(const ExecContext& ctx, const Sampling& a) {
  Scratch thread;
  Row(kAvx2, a.logits.dim(1), thread);
  return ctx.pool->num_threads() * thread.used_bytes();
}

}  // namespace

std::vector<Impl<Sampling>> sampling_impls() {
  return {{"cpu.avx512", DeviceKind::kCpu, needs_avx512<Sampling>, run<kAvx512>, workspace},
          {"cpu.avx2", DeviceKind::kCpu, needs_avx2<Sampling>, run<kAvx2>, workspace},
          sampling_ref};
}

}  // namespace moge::ops::cpu
