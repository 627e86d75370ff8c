#include "sim/imbalance.h"

#include <algorithm>
#include <array>
#include <cmath>
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
  /// Exponential with mean 1.
  double exponential() { return -std::log((bits() + 0.5) * 0x1p-32); }

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

/// Draws batches: one object per task, so that a trial's choices depend on the task's number only.
class BatchRouter {
 public:
  BatchRouter(const ImbalanceSetup& s, uint64_t stream)
      : setup_(s), draws_(s.seed, stream), experts_(static_cast<size_t>(s.num_experts)) {
    const int64_t per_device = s.num_experts / s.num_devices;
    for (size_t e = 0; e < experts_.size(); ++e) {
      experts_[e].device = static_cast<int32_t>(static_cast<int64_t>(e) / per_device);
      if (s.skew > 0) weights_.push_back(std::pow(static_cast<double>(e) + 1, -s.skew));
    }
  }

  /// Adds the expert rows of one batch to `rows` [M].
  void route(std::vector<int32_t>& rows) {
    if (!weights_.empty()) place();
    for (int64_t t = 0; t < setup_.batch_tokens; ++t) weights_.empty() ? choose(rows) : choose_weighted(rows);
  }

 private:
  struct Expert {
    int32_t device = 0;
    double slowness = 0;  // 1 / weight
    double arrival = 0;
  };

  /// Deals the popularity ranks out at random.
  void place() {
    for (size_t e = 0; e < experts_.size(); ++e) {
      const size_t other = e + draws_.below(static_cast<uint32_t>(experts_.size() - e));
      std::swap(weights_[e], weights_[other]);
      experts_[e].slowness = 1 / weights_[e];
    }
  }

  /// K steps of a Fisher-Yates shuffle. It may start from any order, so nothing is put back.
  void choose(std::vector<int32_t>& rows) {
    for (size_t k = 0; k < static_cast<size_t>(setup_.num_experts_per_tok); ++k) {
      const size_t other = k + draws_.below(static_cast<uint32_t>(experts_.size() - k));
      std::swap(experts_[k], experts_[other]);
      ++rows[static_cast<size_t>(experts_[k].device)];
    }
  }

  /// The K first of exponential clocks with the experts' weights as rates are a draw without replacement.
  void choose_weighted(std::vector<int32_t>& rows) {
    race_ = experts_;
    for (Expert& e : race_) e.arrival = draws_.exponential() * e.slowness;
    const auto last = race_.begin() + setup_.num_experts_per_tok;
    if (last != race_.end())
      std::nth_element(race_.begin(), last, race_.end(),
                       [](const Expert& a, const Expert& b) { return a.arrival < b.arrival; });
    for (auto e = race_.begin(); e != last; ++e) ++rows[static_cast<size_t>(e->device)];
  }

  const ImbalanceSetup& setup_;
  Draws draws_;
  std::vector<Expert> experts_, race_;
  std::vector<double> weights_;
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
  std::vector<Counts> by_thread(static_cast<size_t>(pool.num_threads()));
  const int64_t tasks = (setup.trials + kTrialsPerTask - 1) / kTrialsPerTask;
  pool.run(tasks, [&](int64_t task, int thread) {
    Counts& counts = by_thread[static_cast<size_t>(thread)];
    BatchRouter router(setup, static_cast<uint64_t>(task));
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
