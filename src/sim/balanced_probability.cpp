#include "sim/balanced_probability.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

namespace moge::sim {
namespace {

using Complex = std::complex<double>;

constexpr double kMaxWork = 2e8;  // complex multiplications: a second or two

/// log C(n, k)
double log_binomial(int64_t n, int64_t k) {
  const auto log_factorial = [](int64_t x) { return std::lgamma(static_cast<double>(x) + 1); };
  return log_factorial(n) - log_factorial(k) - log_factorial(n - k);
}

/// P(k) of the binomial distribution B(n, p), for 0 < p < 1.
double binomial(int64_t n, int64_t k, double p) {
  return std::exp(log_binomial(n, k) + static_cast<double>(k) * std::log(p) +
                  static_cast<double>(n - k) * std::log1p(-p));
}

Complex power(Complex base, int64_t exponent) {
  Complex result = 1;
  for (; exponent > 0; exponent /= 2, base *= base)
    if (exponent % 2 == 1) result *= base;
  return result;
}

/// Walks over the non-decreasing k_2 <= ... <= k_M with k_1 = 0 (the shifts are divided out) and adds up the
/// terms, each times the number of its permutations.
class TermSum {
 public:
  TermSum(const ImbalanceSetup& s, int64_t c)
      : K_(static_cast<size_t>(s.num_experts_per_tok)), M_(s.num_devices), X_(s.batch_tokens), m_(c + 1) {
    // Every weight C(g, i) is taken times p^i (1 - p)^(g - i), which cancels in e(z) / C(N, K) and keeps all
    // numbers near 1.
    const double p = static_cast<double>(s.num_experts_per_tok) / static_cast<double>(s.num_experts);
    const int64_t g = s.num_experts / s.num_devices;
    norm_ = 1 / binomial(s.num_experts, s.num_experts_per_tok, p);
    for (int64_t k = 0; k < m_; ++k) {
      std::vector<Complex> q(K_ + 1);
      for (int64_t i = 0; i <= std::min(g, s.num_experts_per_tok); ++i)
        q[static_cast<size_t>(i)] = binomial(g, i, p) * root(i * k);
      factors_.push_back(std::move(q));
      phases_.push_back(root(-c * k));
    }
  }

  int64_t m() const { return m_; }

  /// The terms with k_2 = `first`; with `first` = 0 and no k_2 the only term.
  Complex terms(int64_t first) const {
    std::vector<std::vector<Complex>> products(static_cast<size_t>(M_) + 1, std::vector<Complex>(K_ + 1));
    products[1] = factors_[0];
    if (M_ == 1) return power(products[1][K_] * norm_, X_);
    return add(products, 1, first, first, 1, 0, 1.0) * std::tgamma(static_cast<double>(M_));  // (M - 1)!
  }

 private:
  Complex root(int64_t exponent) const {
    const auto turn = static_cast<double>(((exponent % m_) + m_) % m_) / static_cast<double>(m_);
    return std::polar(1.0, 2 * std::numbers::pi * turn);
  }

  /// `placed` devices have their k, the last one `last`, `run` times in a row; the next gets first..end.
  Complex add(std::vector<std::vector<Complex>>& products, int64_t placed, int64_t first, int64_t end,
              Complex phase, int64_t run, double permutations) const {
    const std::vector<Complex>& product = products[static_cast<size_t>(placed)];
    Complex sum = 0;
    for (int64_t k = first; k <= end; ++k) {
      const int64_t in_a_row = k == first ? run + 1 : 1;
      const double weight = permutations / static_cast<double>(in_a_row);
      const std::vector<Complex>& q = factors_[static_cast<size_t>(k)];
      const Complex next_phase = phase * phases_[static_cast<size_t>(k)];
      if (placed + 1 == M_) {
        Complex e = 0;  // only y^K counts
        for (size_t i = 0; i <= K_; ++i) e += product[K_ - i] * q[i];
        sum += weight * next_phase * power(e * norm_, X_);
        continue;
      }
      std::vector<Complex>& next = products[static_cast<size_t>(placed) + 1];
      for (size_t n = 0; n <= K_; ++n) {
        next[n] = 0;
        for (size_t i = 0; i <= n; ++i) next[n] += product[n - i] * q[i];
      }
      sum += add(products, placed + 1, k, m_ - 1, next_phase, in_a_row, weight);
    }
    return sum;
  }

  size_t K_;
  int64_t M_, X_, m_;
  double norm_ = 1;
  std::vector<std::vector<Complex>> factors_;  // by k: coefficients of y^0..y^K
  std::vector<Complex> phases_;                // by k: w^(-c k)
};

}  // namespace

std::optional<double> balanced_probability(const ImbalanceSetup& setup, ThreadPool& pool) {
  setup.validate();
  if (setup.num_experts_per_tok == setup.num_experts) return 1;  // p = 1: every device gets all
  const int64_t rows = setup.batch_tokens * setup.num_experts_per_tok;
  if (rows % setup.num_devices != 0) return 0;
  if (setup.skew > 0) return std::nullopt;
  const int64_t c = rows / setup.num_devices;
  const double log_terms = log_binomial(c + setup.num_devices - 1, setup.num_devices - 1);
  if (log_terms + std::log(static_cast<double>(setup.num_experts_per_tok) + 1) > std::log(kMaxWork))
    return std::nullopt;

  const TermSum sum(setup, c);
  const int64_t tasks = setup.num_devices == 1 ? 1 : sum.m();
  std::vector<Complex> parts(static_cast<size_t>(tasks));
  pool.run(tasks, [&](int64_t k, int) { parts[static_cast<size_t>(k)] = sum.terms(k); });
  Complex total = 0;
  for (const Complex& part : parts) total += part;
  const double terms = std::pow(static_cast<double>(sum.m()), static_cast<double>(setup.num_devices - 1));
  return std::clamp(total.real() / terms, 0.0, 1.0);
}

}  // namespace moge::sim
