#include "sim/imbalance.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/rng.h"

namespace moge::sim {
namespace {

constexpr int64_t kTrialsPerTask = 1024;
constexpr int64_t kMaxRows = 1 << 22;  // of one device, hence of a histogram
constexpr int64_t kMaxExperts = 1 << 16;
constexpr double kMaxSkew = 16;  // weights down to 2^-256

/// The numbers of one Rng stream, each Philox block computed once for its four.
class Draws {
 public:
  Draws(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  uint32_t bits() {
    if (used_ == block_.size()) refill();
    return block_[used_++];
  }
  /// Uniform in 0..n-1; bias below n / 2^32.
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((uint64_t{bits()} * n) >> 32); }

 private:
  void refill() {
    block_ = philox4x32({static_cast<uint32_t>(next_), static_cast<uint32_t>(next_ >> 32),
                         static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
                        {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
    ++next_;
    used_ = 0;
  }

  uint64_t seed_, stream_, next_ = 0;
  std::array<uint32_t, 4> block_{};
  size_t used_ = 4;
};

/// Draws of i with probability proportional to a weight, in constant time (Walker 1977; Vose 1991).
class AliasTable {
 public:
  explicit AliasTable(const std::vector<double>& weights) : slots_(weights.size()) {
    const double mean =
        std::accumulate(weights.begin(), weights.end(), 0.0) / static_cast<double>(weights.size());
    std::vector<double> mass;  // 1 is a full slot
    std::vector<uint32_t> small, large;
    for (const double w : weights) {
      (w < mean ? small : large).push_back(static_cast<uint32_t>(mass.size()));
      mass.push_back(w / mean);
    }
    while (!small.empty() && !large.empty()) {
      const uint32_t i = small.back(), filler = large.back();
      small.pop_back();
      slots_[i] = {static_cast<uint64_t>(std::max(mass[i], 0.0) * 0x1p32),
                   filler};  // rounding can go below 0
      mass[filler] -= 1 - mass[i];
      if (mass[filler] >= 1) continue;
      large.pop_back();
      small.push_back(filler);
    }
    for (const std::vector<uint32_t>* rest : {&small, &large})  // full, but for rounding
      for (const uint32_t i : *rest) slots_[i] = {uint64_t{1} << 32, i};
  }

  /// One random number: its high part chooses the slot, the rest which of the slot's two values.
  uint32_t draw(uint32_t bits) const {
    const uint64_t product = uint64_t{bits} * slots_.size();
    const auto i = static_cast<uint32_t>(product >> 32);
    return (product & 0xFFFFFFFFU) < slots_[i].threshold ? i : slots_[i].alias;
  }

 private:
  struct Slot {
    uint64_t threshold = 0;
    uint32_t alias = 0;
  };
  std::vector<Slot> slots_;
};

/// What the router's preferences look like, made once for all tasks.
struct Popularity {
  explicit Popularity(const ImbalanceSetup& s) : weights(ranks(s)), table(weights) {}
  static std::vector<double> ranks(const ImbalanceSetup& s) {
    std::vector<double> w;
    for (int64_t r = 1; r <= s.num_experts; ++r) w.push_back(std::pow(static_cast<double>(r), -s.skew));
    return w;
  }
  std::vector<double> weights;  ///< by popularity rank
  AliasTable table;
};

/// Draws batches: one object per task, so that a trial's choices depend on the task's number only.
class BatchRouter {
 public:
  BatchRouter(const ImbalanceSetup& s, const Popularity& popularity, uint64_t stream)
      : setup_(s), popularity_(popularity), draws_(s.seed, stream) {
    const int64_t per_device = s.num_experts / s.num_devices;
    for (int64_t e = 0; e < s.num_experts; ++e) devices_.push_back(static_cast<uint32_t>(e / per_device));
    chosen_by_.resize(devices_.size());
  }

  /// Adds the expert rows of one batch to `rows` [M].
  void route(std::vector<int32_t>& rows) {
    if (setup_.skew > 0) shuffle(devices_.size());  // places the ranks on the devices
    for (int64_t t = 0; t < setup_.batch_tokens; ++t) setup_.skew > 0 ? choose_weighted(rows) : choose(rows);
  }

 private:
  /// Puts a random choice of devices_, in random order, into its first `count` places. It may start from any
  /// order (Fisher-Yates), so nothing is put back afterwards.
  void shuffle(size_t count) {
    for (size_t i = 0; i < count; ++i)
      std::swap(devices_[i], devices_[i + draws_.below(static_cast<uint32_t>(devices_.size() - i))]);
  }

  void choose(std::vector<int32_t>& rows) {
    const auto K = static_cast<size_t>(setup_.num_experts_per_tok);
    shuffle(K);
    for (size_t k = 0; k < K; ++k) ++rows[devices_[k]];
  }

  /// One expert after the other, each by weight among those that are left.
  void choose_weighted(std::vector<int32_t>& rows) {
    ++token_;
    for (int64_t k = 0; k < setup_.num_experts_per_tok; ++k) {
      const uint32_t rank = next_rank();
      chosen_by_[rank] = token_;
      ++rows[devices_[rank]];
    }
  }

  /// Draws until it is a rank that is left; where those have little weight, goes through them instead.
  uint32_t next_rank() {
    constexpr int kTries = 24;
    for (int i = 0; i < kTries; ++i) {
      const uint32_t rank = popularity_.table.draw(draws_.bits());
      if (chosen_by_[rank] != token_) return rank;
    }
    const std::vector<double>& weights = popularity_.weights;
    double left = 0;
    for (size_t r = 0; r < weights.size(); ++r) left += chosen_by_[r] != token_ ? weights[r] : 0;
    left *= (draws_.bits() + 0.5) * 0x1p-32;
    uint32_t last = 0;
    for (uint32_t r = 0; r < weights.size(); ++r) {
      if (chosen_by_[r] == token_) continue;
      last = r;
      left -= weights[r];
      if (left < 0) break;
    }
    return last;  // also where rounding left a rest
  }

  const ImbalanceSetup& setup_;
  const Popularity& popularity_;
  Draws draws_;
  std::vector<uint32_t> devices_;    // with a skew by rank, else in any order
  std::vector<uint64_t> chosen_by_;  // the last token that chose a rank
  uint64_t token_ = 0;
};

/// The ends of the Wilson score interval: sign -1 or +1.
double wilson(int64_t hits, int64_t total, double sign) {
  constexpr double kZ = 1.959963985;  // 97.5% of a normal distribution
  const auto n = static_cast<double>(total);
  const double p = static_cast<double>(hits) / n;
  const double spread = kZ * std::sqrt(p * (1 - p) / n + kZ * kZ / (4 * n * n));
  return std::clamp((p + kZ * kZ / (2 * n) + sign * spread) / (1 + kZ * kZ / n), 0.0, 1.0);
}

}  // namespace

void ImbalanceSetup::validate() const {
  const auto positive = [](int64_t value, const char* what) {
    check<UsageError>(value >= 1, what, ": expected at least 1, got ", value);
  };
  positive(num_experts, "experts");
  positive(num_experts_per_tok, "experts per token");
  positive(num_devices, "groups");
  positive(batch_tokens, "tokens of a batch");
  positive(trials, "trials");
  check<UsageError>(num_experts_per_tok <= num_experts, "a token cannot choose ", num_experts_per_tok, " of ",
                    num_experts, " experts");
  check<UsageError>(num_experts % num_devices == 0, num_experts, " experts do not divide into ", num_devices,
                    " equal groups");
  check<UsageError>(num_experts <= kMaxExperts, "experts: expected at most ", kMaxExperts, ", got ",
                    num_experts);
  check<UsageError>(skew >= 0 && skew <= kMaxSkew, "skew: expected 0 to ", kMaxSkew, ", got ", skew);
  // Division: the product of two large sizes would overflow.
  check<UsageError>(batch_tokens <= kMaxRows / std::min(num_experts_per_tok, num_experts / num_devices),
                    "a device could get more than ", kMaxRows, " expert rows: fewer tokens, or more groups");
}

double ImbalanceSetup::mean_rows() const {
  return static_cast<double>(batch_tokens) * static_cast<double>(num_experts_per_tok) /
         static_cast<double>(num_devices);
}

double ImbalanceResult::mean() const {
  return spread.mean() / static_cast<double>(setup.batch_tokens);
}
double ImbalanceResult::standard_error() const {
  return spread.standard_error() / static_cast<double>(setup.batch_tokens);
}
double ImbalanceResult::quantile(double p) const {
  return static_cast<double>(spread.quantile(p)) / static_cast<double>(setup.batch_tokens);
}
double ImbalanceResult::p_imbalanced() const {
  return 1 - static_cast<double>(spread.count(0)) / static_cast<double>(spread.total());
}
double ImbalanceResult::p_imbalanced_low() const {
  return wilson(spread.total() - spread.count(0), spread.total(), -1);
}
double ImbalanceResult::p_imbalanced_high() const {
  return wilson(spread.total() - spread.count(0), spread.total(), 1);
}
double ImbalanceResult::straggler_factor() const {
  return busiest.mean() / setup.mean_rows();
}
double ImbalanceResult::straggler_standard_error() const {
  return busiest.standard_error() / setup.mean_rows();
}

ImbalanceResult simulate_imbalance(const ImbalanceSetup& setup, ThreadPool& pool) {
  setup.validate();
  struct Counts {
    Histogram spread, busiest;
  };
  const Popularity popularity(setup);
  std::vector<Counts> by_thread(static_cast<size_t>(pool.num_threads()));
  const int64_t tasks = (setup.trials + kTrialsPerTask - 1) / kTrialsPerTask;
  pool.run(tasks, [&](int64_t task, int thread) {
    Counts& counts = by_thread[static_cast<size_t>(thread)];
    BatchRouter router(setup, popularity, static_cast<uint64_t>(task));
    std::vector<int32_t> rows;
    const int64_t trials = std::min(kTrialsPerTask, setup.trials - task * kTrialsPerTask);
    for (int64_t trial = 0; trial < trials; ++trial) {
      rows.assign(static_cast<size_t>(setup.num_devices), 0);
      router.route(rows);
      const auto [low, high] = std::minmax_element(rows.begin(), rows.end());
      counts.spread.add(*high - *low);
      counts.busiest.add(*high);
    }
  });
  ImbalanceResult result{setup};
  for (const Counts& counts : by_thread) {
    result.spread.add(counts.spread);
    result.busiest.add(counts.busiest);
  }
  return result;
}

}  // namespace moge::sim
