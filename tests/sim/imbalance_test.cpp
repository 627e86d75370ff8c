#include "sim/imbalance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

#include "refusal.h"
#include "sim/balanced_probability.h"

namespace moge::sim {
namespace {

/// P(max - min = d) by going through every choice of every token. N <= 16.
std::map<int64_t, double> enumerate_spread(const ImbalanceSetup& s) {
  using Rows = std::vector<int64_t>;
  std::vector<Rows> choices;
  for (uint32_t mask = 0; mask < (1U << s.num_experts); ++mask) {
    if (std::popcount(mask) != s.num_experts_per_tok) continue;
    Rows rows(static_cast<size_t>(s.num_devices));
    for (int64_t e = 0; e < s.num_experts; ++e)
      rows[static_cast<size_t>(e / (s.num_experts / s.num_devices))] += (mask >> e) & 1U;
    choices.push_back(rows);
  }
  std::map<Rows, double> batches{{Rows(static_cast<size_t>(s.num_devices)), 1.0}};
  for (int64_t t = 0; t < s.batch_tokens; ++t) {
    std::map<Rows, double> next;
    for (const auto& [rows, p] : batches)
      for (const Rows& choice : choices) {
        Rows sum = rows;
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += choice[i];
        next[sum] += p / static_cast<double>(choices.size());
      }
    batches = std::move(next);
  }
  std::map<int64_t, double> spread;
  for (const auto& [rows, p] : batches) {
    const auto [low, high] = std::minmax_element(rows.begin(), rows.end());
    spread[*high - *low] += p;
  }
  return spread;
}

/// Five standard errors of a frequency: a wrong alarm once in two million.
double five_sigma(double p, int64_t trials) {
  return 5 * std::sqrt(p * (1 - p) / static_cast<double>(trials)) + 1e-12;
}

class SmallCases : public testing::TestWithParam<ImbalanceSetup> {};

TEST_P(SmallCases, AgreeWithEnumeration) {
  ImbalanceSetup setup = GetParam();
  setup.trials = 200'000;
  ThreadPool pool(2);
  const ImbalanceResult result = simulate_imbalance(setup, pool);
  ASSERT_EQ(result.spread.total(), setup.trials);
  double total = 0;
  const std::map<int64_t, double> exact = enumerate_spread(setup);
  EXPECT_NEAR(balanced_probability(setup, pool).value(), exact.contains(0) ? exact.at(0) : 0, 1e-13);
  for (const auto& [d, p] : exact) {
    total += p;
    EXPECT_NEAR(static_cast<double>(result.spread.count(d)) / static_cast<double>(setup.trials), p,
                five_sigma(p, setup.trials))
        << "max - min = " << d;
  }
  EXPECT_NEAR(total, 1, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Imbalance, SmallCases,
                         testing::Values(ImbalanceSetup{4, 2, 2, 1}, ImbalanceSetup{4, 2, 2, 3},
                                         ImbalanceSetup{8, 2, 4, 2}, ImbalanceSetup{8, 3, 2, 4},
                                         ImbalanceSetup{6, 2, 3, 5}, ImbalanceSetup{12, 4, 4, 2}));

/// P(max - min = d) for K = 2 weighted choices, going through all placements and all choices of two tokens.
std::map<int64_t, double> enumerate_weighted_pairs(const ImbalanceSetup& s) {
  const auto N = static_cast<size_t>(s.num_experts);
  std::vector<double> w;
  for (size_t r = 0; r < N; ++r) w.push_back(std::pow(static_cast<double>(r + 1), -s.skew));
  const double all = std::accumulate(w.begin(), w.end(), 0.0);
  std::vector<size_t> place(N);
  std::iota(place.begin(), place.end(), size_t{0});
  std::map<int64_t, double> spread;
  double placements = 0;
  do {
    ++placements;
    using Rows = std::vector<int64_t>;
    std::map<Rows, double> token;
    for (size_t i = 0; i < N; ++i)
      for (size_t j = 0; j < N; ++j) {
        if (i == j) continue;
        Rows rows(static_cast<size_t>(s.num_devices));
        for (const size_t r : {i, j}) ++rows[place[r] / (N / rows.size())];
        token[rows] += w[i] / all * w[j] / (all - w[i]);
      }
    for (const auto& [a, pa] : token)
      for (const auto& [b, pb] : token) {
        Rows sum = a;
        for (size_t k = 0; k < sum.size(); ++k) sum[k] += b[k];
        const auto [low, high] = std::minmax_element(sum.begin(), sum.end());
        spread[*high - *low] += pa * pb;
      }
  } while (std::next_permutation(place.begin(), place.end()));
  for (auto& [d, p] : spread) p /= placements;
  return spread;
}

TEST(Imbalance, WeightedChoicesAreSuccessiveDraws) {
  ThreadPool pool(2);
  for (const double skew : {0.3, 1.5, 6.0, 16.0}) {  // the last two need the way round rejected draws
    const ImbalanceSetup setup{6, 2, 3, 2, skew, 400'000};
    const ImbalanceResult result = simulate_imbalance(setup, pool);
    for (const auto& [d, p] : enumerate_weighted_pairs(setup))
      EXPECT_NEAR(static_cast<double>(result.spread.count(d)) / static_cast<double>(setup.trials), p,
                  five_sigma(p, setup.trials))
          << "skew " << skew << ", max - min = " << d;
  }
}

TEST(Imbalance, Figure2b) {
  ThreadPool pool(2);
  ImbalanceSetup setup;
  setup.trials = 100'000;
  const ImbalanceResult result = simulate_imbalance(setup, pool);
  // The eight T_i have to meet at 16. A local limit theorem gives 4e-7: covariance 16 (8/9) (I - 1/8),
  // density sqrt(8) (2 pi 16 8/9)^-3.5.
  const double p_zero = std::sqrt(8.0) * std::pow(2 * M_PI * 16 * 8 / 9, -3.5);
  EXPECT_LT(p_zero, 1e-6);
  EXPECT_GT(result.p_imbalanced(), 1 - p_zero - 5e-5);
  EXPECT_LE(result.p_imbalanced_low(), result.p_imbalanced());
  EXPECT_GT(result.p_imbalanced_low(), 0.9999);
  // max - min of M = 8 independent normal numbers is 2.847 standard deviations in the mean; T_i, a sum of 16
  // hypergeometric numbers, has the variance 16 * 7/9 and a correlation of -1/7, which widens that by 8/7.
  const double sigma = std::sqrt(16 * 7.0 / 9 * 8 / 7);
  EXPECT_NEAR(result.mean() * 16, 2.847 * sigma, 0.02 * sigma);
  EXPECT_GT(result.straggler_factor(), 1.2);
  EXPECT_LE(result.quantile(0.5), result.quantile(0.99));
}

TEST(Imbalance, ExactProbabilityOfBalance) {
  ThreadPool one(1), three(3);
  // Fig. 2b: the local limit theorem's estimate, which is good to a few percent, and the same bits on any
  // threads.
  const double p = balanced_probability({}, one).value();
  const double estimate = std::sqrt(8.0) * std::pow(2 * M_PI * 16 * 8 / 9, -3.5);
  EXPECT_NEAR(p, estimate, 0.05 * estimate);
  EXPECT_EQ(p, balanced_probability({}, three).value());
  // A setting of other sizes in which balance is common enough to be drawn.
  ImbalanceSetup setup{24, 4, 4, 5};
  setup.trials = 400'000;
  const double q = balanced_probability(setup, three).value();
  EXPECT_NEAR(1 - simulate_imbalance(setup, three).p_imbalanced(), q, five_sigma(q, setup.trials));
  EXPECT_EQ(balanced_probability({64, 6, 4, 1}, one), 0.0);  // 6 rows on 4 devices
  EXPECT_EQ(balanced_probability({16, 4, 1, 9}, one).value(), 1);
  EXPECT_EQ(balanced_probability({64, 8, 8, 100'000}, one), std::nullopt);
  EXPECT_EQ(balanced_probability({64, 8, 8, 16, 0.5}, one), std::nullopt);
}

TEST(Imbalance, ChoosingAllExpertsIsBalanced) {
  ThreadPool pool(1);
  for (const double skew : {0.0, 16.0}) {
    const ImbalanceResult result = simulate_imbalance({16, 16, 4, 5, skew, 3000}, pool);
    EXPECT_EQ(result.mean(), 0);
    EXPECT_EQ(result.p_imbalanced(), 0);
    EXPECT_EQ(result.straggler_factor(), 1);
    EXPECT_EQ(balanced_probability(result.setup, pool), 1.0);
    EXPECT_EQ(result.p_imbalanced_low(), 0);
    EXPECT_GT(result.p_imbalanced_high(), 0);
  }
}

TEST(Imbalance, DoesNotDependOnThreadsButOnTheSeed) {
  ImbalanceSetup setup;
  setup.trials = 5000;
  setup.skew = 0.5;
  ThreadPool one(1), three(3);
  const ImbalanceResult a = simulate_imbalance(setup, one), b = simulate_imbalance(setup, three);
  EXPECT_EQ(a.mean(), b.mean());
  EXPECT_EQ(a.standard_error(), b.standard_error());
  for (int64_t d = 0; d < a.spread.size(); ++d) EXPECT_EQ(a.spread.count(d), b.spread.count(d));
  setup.seed = 1;
  EXPECT_NE(a.mean(), simulate_imbalance(setup, one).mean());
}

TEST(Imbalance, RefusesWhatCannotBe) {
  ThreadPool pool(1);
  const auto refusal = [&](ImbalanceSetup s) {
    return test::refusal<UsageError>([&] { simulate_imbalance(s, pool); });
  };
  EXPECT_THAT(refusal({64, 65}), testing::HasSubstr("cannot choose 65 of 64"));
  EXPECT_THAT(refusal({64, 8, 7}), testing::HasSubstr("64 experts do not divide into 7"));
  EXPECT_THAT(refusal({64, 8, 8, 0}), testing::HasSubstr("tokens of a batch: expected at least 1, got 0"));
  EXPECT_THAT(refusal({64, 8, 8, int64_t{1} << 62}), testing::HasSubstr("more than 4194304 expert rows"));
  EXPECT_THAT(refusal({64, 8, 8, 16, NAN}), testing::HasSubstr("skew"));
  EXPECT_THAT(refusal({64, 8, 8, 16, 0, -1}), testing::HasSubstr("trials"));
}

TEST(Histogram, Quantiles) {
  Histogram h;
  EXPECT_EQ(h.quantile(0.5), 0);
  EXPECT_EQ(h.standard_deviation(), 0);
  for (const int64_t value : {1, 2, 2, 5}) h.add(value);
  EXPECT_EQ(h.quantile(0), 1);
  EXPECT_EQ(h.quantile(0.25), 1);
  EXPECT_EQ(h.quantile(0.26), 2);
  EXPECT_EQ(h.quantile(0.75), 2);
  EXPECT_EQ(h.quantile(1), 5);
  EXPECT_EQ(h.mean(), 2.5);
  EXPECT_DOUBLE_EQ(h.standard_deviation(), std::sqrt(3.0));  // squares 2.25 .25 .25 6.25, over 3
  EXPECT_DOUBLE_EQ(h.standard_error(), std::sqrt(3.0) / 2);
}

}  // namespace
}  // namespace moge::sim
